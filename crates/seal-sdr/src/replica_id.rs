//! The replica id of a sector.

use seal_types::{Commitment, PorepId, ProverId, ReplicaId, SectorId, Ticket};
use sha2::{Digest, Sha256};

/// SHA-256 over who seals what under which randomness, cut to 254 bits.
///
/// Source: `storage_proofs_porep::stacked::generate_replica_id`.
pub fn replica_id(
    prover_id: ProverId,
    sector_id: SectorId,
    ticket: Ticket,
    comm_d: Commitment,
    porep_id: PorepId,
) -> ReplicaId {
    let mut id: [u8; 32] = Sha256::new()
        .chain_update(prover_id.0)
        .chain_update(sector_id.0.to_be_bytes())
        .chain_update(ticket.0)
        .chain_update(comm_d.0)
        .chain_update(porep_id.0)
        .finalize()
        .into();
    id[31] &= 0x3f;
    ReplicaId(id)
}
