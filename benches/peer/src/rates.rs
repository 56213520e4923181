//! Poseidon hashes a second on one thread by the published `neptune`, and products of scalar field
//! elements by the published `blst`, in the form in which `pc2-exec rates` tells its own.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use blstrs::Scalar as Fr;
use ff::PrimeField;
use generic_array::typenum::{U2, U8, U11};
use neptune::Arity;
use neptune::poseidon::PoseidonConstants;
use serde_json::{Value, json};

/// Hashes, or products in a chain, of a batch.
const BATCH: u32 = 1024;

/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(500);

/// Writes the rates, a line of JSON each.
pub(crate) fn print() -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for rate in [
        neptune::<U2>(2, 578)?,
        neptune::<U8>(8, 1932)?,
        neptune::<U11>(11, 2790)?,
        json!({ "kernel": "blst", "multiplications": products() }),
    ] {
        writeln!(stdout, "{rate}")?;
    }
    Ok(())
}

/// Columns as in a sector: the nodes of as many layers as the arity, one after the other.
fn neptune<A: Arity<Fr>>(arity: u32, multiplications: u32) -> Result<Value> {
    let layers: Vec<Vec<[u8; 32]>> = (0..arity)
        .map(|layer| (0..BATCH).map(|node| [(layer * 5 + node % 50) as u8; 32]).collect())
        .collect();
    let constants = PoseidonConstants::<Fr, A>::new();
    let mut hasher = neptune::Poseidon::new(&constants);
    let mut hash = || -> Result<()> {
        for node in 0..BATCH as usize {
            hasher.reset();
            for layer in black_box(&layers) {
                let element = Option::<Fr>::from(Fr::from_repr_vartime(layer[node]))
                    .context("an element of the field")?;
                hasher.input(element).map_err(|error| anyhow!("{error:?}"))?;
            }
            black_box(hasher.hash().to_repr());
        }
        Ok(())
    };
    hash()?;
    let (began, mut batches) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        hash()?;
        batches += 1;
    }
    let hashes = f64::from(batches) * f64::from(BATCH) / began.elapsed().as_secs_f64();
    let multiplications = hashes * f64::from(multiplications);
    Ok(json!({
        "kernel": "neptune", "arity": arity, "hashes": hashes, "multiplications": multiplications
    }))
}

/// Products a second, in chains that do not wait for each other.
fn products() -> f64 {
    let factor = black_box(-Fr::from(3));
    let mut elements = [factor; 8];
    let (began, mut batches) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        for _ in 0..BATCH {
            for element in &mut elements {
                *element *= factor;
            }
        }
        batches += 1;
    }
    black_box(&elements);
    let products = f64::from(batches) * f64::from(BATCH) * elements.len() as f64;
    products / began.elapsed().as_secs_f64()
}
