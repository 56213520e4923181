//! Published digests: the parents caches and the Groth16 files of the PoRep circuits.
//!
//! Source: `parent_cache.json` and `parameters.json` of `storage-proofs` 19.1. Tests compare this
//! table with the whole published tables under `tests/vectors`.

use crate::{ApiVersion, SectorSize};

/// Digest of a published parents cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentsDigest {
    /// The file's name without `.cache`.
    pub name: &'static str,
    /// Size of the sectors whose graph it holds.
    pub sector_size: SectorSize,
    /// API version of that graph.
    pub api_version: ApiVersion,
    /// SHA-256 over the file, in hex.
    pub sha256: &'static str,
}

/// Digest of a published Groth16 parameter file or verifying key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrothFile {
    /// The file's name, with `.params` or `.vk`.
    pub name: &'static str,
    /// Size of the sectors the circuit is for.
    pub sector_size: SectorSize,
    /// First 16 bytes of BLAKE2b-512 over the file, in hex.
    pub blake2b_16: &'static str,
}

/// All published parents caches.
pub fn published_parents_caches() -> &'static [ParentsDigest] {
    &PARENTS
}

/// The published digest of the parents cache called `name` (without `.cache`).
pub fn parents_cache_digest(name: &str) -> Option<ParentsDigest> {
    PARENTS.iter().copied().find(|digest| digest.name == name)
}

/// All published Groth16 files of the PoRep circuits.
pub fn published_groth_files() -> &'static [GrothFile] {
    &GROTH
}

/// The published digest of the Groth16 file called `name` (with its extension).
pub fn groth_file_digest(name: &str) -> Option<GrothFile> {
    GROTH.iter().copied().find(|file| file.name == name)
}

const PARENTS: [ParentsDigest; 10] = [
    ParentsDigest {
        name: "v28-sdr-parent-21981246c370f9d76c7a77ab273d94bde0ceb4e938292334960bce05585dc117",
        sector_size: SectorSize::GIB_32,
        api_version: ApiVersion::V1_1,
        sha256: "93deeac5e3052b6927467d4b2641bb782f05491de18d510147c93eeedd8672da",
    },
    ParentsDigest {
        name: "v28-sdr-parent-2aa9c77c3e58259481351cc4be2079cc71e1c9af39700866545c043bfa30fb42",
        sector_size: SectorSize::MIB_512,
        api_version: ApiVersion::V1_0,
        sha256: "3adcc092423aa76d6a7184016893406da44dd974b219a89cd3ece25e4e3018f5",
    },
    ParentsDigest {
        name: "v28-sdr-parent-3f0eef38bb48af1f48ad65e14eb85b4ebfc167cec18cd81764f6d998836c9899",
        sector_size: SectorSize::KIB_2,
        api_version: ApiVersion::V1_0,
        sha256: "3da49221e2ed55371b86d0bf3d6526fcf128af61bed904f966428db1b531750d",
    },
    ParentsDigest {
        name: "v28-sdr-parent-4905486b7af19558ac3649bc6261411858b6add534438878c4ee3b29d8b9de0b",
        sector_size: SectorSize::GIB_64,
        api_version: ApiVersion::V1_1,
        sha256: "2698b74eb2606b55b98d8b095e18b6320b47f46e00075956d48640ccd1641b03",
    },
    ParentsDigest {
        name: "v28-sdr-parent-494d91dc80f2df5272c4b9e129bc7ade9405225993af9fe34e6542a39a47554b",
        sector_size: SectorSize::KIB_2,
        api_version: ApiVersion::V1_1,
        sha256: "840057702eea7652cf97e04306c30fe57174714d90de156a25eddd6075c25b97",
    },
    ParentsDigest {
        name: "v28-sdr-parent-5eed212119fd91aa6220a27f31a8966444a9381842bceb3a1ea61525bd47a5b5",
        sector_size: SectorSize::MIB_8,
        api_version: ApiVersion::V1_1,
        sha256: "03cd13565ded97c240a5f52e54295ad127bd0461b57904cb3a4d79b097bbecab",
    },
    ParentsDigest {
        name: "v28-sdr-parent-7ba215a1d2345774ab90b8cb1158d296e409d6068819d7b8c7baf0b25d63dc34",
        sector_size: SectorSize::MIB_512,
        api_version: ApiVersion::V1_1,
        sha256: "b5877d1963793efebc261fd8fde4dd6bc59e6b5c7abf52617a4ee023b8dc173a",
    },
    ParentsDigest {
        name: "v28-sdr-parent-8a99e8d6b6be7ab87a56b632e6739ff201c23ea14e99737c74690f0e265574d6",
        sector_size: SectorSize::GIB_64,
        api_version: ApiVersion::V1_0,
        sha256: "2778a732ad46a7dc18e0564dfdf59fd321dcde74ab476fd6d3c4e6735d7cd89c",
    },
    ParentsDigest {
        name: "v28-sdr-parent-dcdabb0fbe4364bf0ac28b6a18c66de246409fa1a9020a00f33fb3e3053da6dc",
        sector_size: SectorSize::MIB_8,
        api_version: ApiVersion::V1_0,
        sha256: "a76604f2f59f2744c7151653bbb1d8596b6b57d295e6fa6c1f0c41d725b502ce",
    },
    ParentsDigest {
        name: "v28-sdr-parent-e1fa5d5b811ddbd118be3412c4a8c329156b8b8acc72632bca459455b5a05a13",
        sector_size: SectorSize::GIB_32,
        api_version: ApiVersion::V1_0,
        sha256: "3c4f9841fcc75aed8c695800e58d08480629f25af3a2aefd81904181d75cc0b6",
    },
];

const GROTH: [GrothFile; 10] = [
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-032d3138d22506ec0082ed72b2dcba18df18477904e35bafee82b3793b06832f.params",
        sector_size: SectorSize::KIB_2,
        blake2b_16: "434fb1338ecfaf0f59256f30dde4968f",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-032d3138d22506ec0082ed72b2dcba18df18477904e35bafee82b3793b06832f.vk",
        sector_size: SectorSize::KIB_2,
        blake2b_16: "dc1ade9929ade1708238f155343044ac",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-6babf46ce344ae495d558e7770a585b2382d54f225af8ed0397b8be7c3fcd472.params",
        sector_size: SectorSize::MIB_512,
        blake2b_16: "6c77597eb91ab936c1cef4cf19eba1b3",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-6babf46ce344ae495d558e7770a585b2382d54f225af8ed0397b8be7c3fcd472.vk",
        sector_size: SectorSize::MIB_512,
        blake2b_16: "065179da19fbe515507267677f02823e",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-ecd683648512ab1765faa2a5f14bab48f676e633467f0aa8aad4b55dcb0652bb.params",
        sector_size: SectorSize::MIB_8,
        blake2b_16: "09e612e4eeb7a0eb95679a88404f960c",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-ecd683648512ab1765faa2a5f14bab48f676e633467f0aa8aad4b55dcb0652bb.vk",
        sector_size: SectorSize::MIB_8,
        blake2b_16: "b687beb9adbd9dabe265a7e3620813e4",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-8-0-sha256_hasher-82a357d2f2ca81dc61bb45f4a762807aedee1b0a53fd6c4e77b46a01bfef7820.params",
        sector_size: SectorSize::GIB_32,
        blake2b_16: "6a388072a518cf46ebd661f5cc46900a",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-8-0-sha256_hasher-82a357d2f2ca81dc61bb45f4a762807aedee1b0a53fd6c4e77b46a01bfef7820.vk",
        sector_size: SectorSize::GIB_32,
        blake2b_16: "0c7b4aac1c40fdb7eb82bc355b41addf",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-8-2-sha256_hasher-96f1b4a04c5c51e4759bbf224bbc2ef5a42c7100f16ec0637123f16a845ddfb2.params",
        sector_size: SectorSize::GIB_64,
        blake2b_16: "1801f8a6e1b00bceb00cc27314bb5ce3",
    },
    GrothFile {
        name: "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-8-2-sha256_hasher-96f1b4a04c5c51e4759bbf224bbc2ef5a42c7100f16ec0637123f16a845ddfb2.vk",
        sector_size: SectorSize::GIB_64,
        blake2b_16: "a89884252c04c298d0b3c81bfd884164",
    },
];
