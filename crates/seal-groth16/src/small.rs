//! A small circuit of the form that partitions have, for tests against bellperson: a prologue,
//! and the same constraints for each challenge.

use bellperson::groth16::{Parameters, generate_random_parameters};
use bellperson::{Circuit, ConstraintSystem, LinearCombination, SynthesisError, Variable};
use blstrs::{Bls12, Scalar};
use ff::Field;
use rand_chacha::ChaCha8Rng;

use crate::r1cs::Compiled;

/// The values of a circuit; none for a blank one.
#[derive(Clone)]
pub(crate) struct Small {
    /// The prologue's secret, and each challenge's.
    pub(crate) secrets: Option<(Scalar, Vec<Scalar>)>,
    pub(crate) challenges: usize,
}

impl Small {
    pub(crate) fn blank(challenges: usize) -> Self {
        Self { secrets: None, challenges }
    }

    pub(crate) fn filled(seed: u64, challenges: usize) -> Self {
        let secret =
            |i: u64| (Scalar::from(seed) + Scalar::from(i)).square().square() - Scalar::ONE;
        let of_challenges = (0..challenges as u64).map(|i| secret(100 + i)).collect();
        Self { secrets: Some((secret(7), of_challenges)), challenges }
    }

    /// The circuit as it is compiled from those of one and of two challenges.
    pub(crate) fn compiled(challenges: usize) -> Compiled {
        Compiled::record(challenges, Self::blank(1), Self::blank(2)).expect("equal challenges")
    }

    /// Parameters as bellperson makes them.
    pub(crate) fn parameters(challenges: usize, rng: &mut ChaCha8Rng) -> Parameters<Bls12> {
        generate_random_parameters(Self::blank(challenges), rng).expect("small")
    }

    /// The circuit with one of the challenges alone.
    pub(crate) fn alone(&self, challenge: usize) -> Self {
        let secrets = self.secrets.as_ref().map(|(own, all)| (*own, vec![all[challenge]]));
        Self { secrets, challenges: 1 }
    }
}

/// The two secrets of a proof: none for the first, so that nothing hides what it is made of.
pub(crate) fn randomness(seed: u64, rng: &mut ChaCha8Rng) -> [Scalar; 2] {
    match seed {
        0 => [Scalar::ZERO; 2],
        _ => [0; 2].map(|_| Scalar::random(&mut *rng)),
    }
}

fn known(value: Option<Scalar>) -> Result<Scalar, SynthesisError> {
    value.ok_or(SynthesisError::AssignmentMissing)
}

/// A variable with its value.
type Known = (Variable, Option<Scalar>);

fn square<CS: ConstraintSystem<Scalar>>(cs: &mut CS, of: Known) -> Result<Known, SynthesisError> {
    let value = of.1.map(|value| value.square());
    let variable = cs.alloc(|| "square", || known(value))?;
    cs.enforce(|| "square", |lc| lc + of.0, |lc| lc + of.0, |lc| lc + variable);
    Ok((variable, value))
}

impl Circuit<Scalar> for Small {
    fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let own = self.secrets.as_ref().map(|(own, _)| *own);
        let secret = (cs.alloc(|| "secret", || known(own))?, own);
        let shared = square(cs, secret)?;
        let public = cs.alloc_input(|| "public", || known(shared.1))?;
        cs.enforce(|| "public", |lc| lc + shared.0, |lc| lc + CS::one(), |lc| lc + public);

        for challenge in 0..self.challenges {
            let own = self.secrets.as_ref().map(|(_, all)| all[challenge]);
            let secret = (cs.alloc(|| "own", || known(own))?, own);
            // Bits, as most of a real circuit's variables are: a (1 - a) = 0.
            let mut packed = LinearCombination::zero();
            let mut power = Scalar::ONE;
            let mut sum = own.map(|_| Scalar::ZERO);
            for bit in 0..20 {
                let value = own.map(|own| {
                    let is_set = own.to_bytes_le()[bit / 8] >> (bit % 8) & 1 == 1;
                    if is_set { Scalar::ONE } else { Scalar::ZERO }
                });
                let variable = cs.alloc(|| "bit", || known(value))?;
                let minus_one = -Scalar::ONE;
                cs.enforce(
                    || "bit",
                    |lc| lc + CS::one() + (minus_one, variable),
                    |lc| lc + variable,
                    |lc| lc,
                );
                packed = packed + (power, variable);
                sum = sum.zip(value).map(|(sum, value)| sum + power * value);
                power = power.double();
            }
            let number = cs.alloc(|| "number", || known(sum))?;
            cs.enforce(|| "pack", |_| packed, |lc| lc + CS::one(), |lc| lc + number);
            // An input that comes after variables, a coefficient of no use, the prologue's
            // variables, and a variable that B does not have.
            let product = shared.1.zip(own).map(|(a, b)| a * (b + Scalar::from(5)));
            let output = cs.alloc_input(|| "output", || known(product))?;
            cs.enforce(
                || "output",
                |lc| lc + shared.0 + (Scalar::ZERO, number),
                |lc| lc + secret.0 + (Scalar::from(5), CS::one()),
                |lc| lc + output,
            );
            let fourth = square(cs, secret)?;
            let difference = fourth.1.zip(sum).map(|(a, b)| a - b);
            let last = cs.alloc(|| "difference", || known(difference))?;
            cs.enforce(
                || "difference",
                |lc| lc + fourth.0 - number,
                |lc| lc + CS::one(),
                |lc| lc + last,
            );
        }
        Ok(())
    }
}
