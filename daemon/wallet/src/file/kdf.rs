//! Password based key derivation with bounded cost.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::FileError;

/// Cost of the Argon2id derivation that protects a native key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    memory_kib: u32,
    time: u32,
    lanes: u8,
}

impl KdfParams {
    /// Least memory, for boards with 512 MB: 19 MiB.
    pub const MIN_MEMORY_KIB: u32 = 19 * 1024;
    /// Most memory: a file must not be able to exhaust a board with 512 MB.
    pub const MAX_MEMORY_KIB: u32 = 256 * 1024;
    /// Most passes.
    pub const MAX_TIME: u32 = 64;
    /// Most lanes.
    pub const MAX_LANES: u8 = 8;

    /// Checks the limits.
    ///
    /// # Errors
    /// [`FileError::ExcessiveKdf`] when a number is outside of its range.
    pub const fn new(memory_kib: u32, time: u32, lanes: u8) -> Result<Self, FileError> {
        if memory_kib < Self::MIN_MEMORY_KIB
            || memory_kib > Self::MAX_MEMORY_KIB
            || time < 1
            || time > Self::MAX_TIME
            || lanes < 1
            || lanes > Self::MAX_LANES
        {
            return Err(FileError::ExcessiveKdf);
        }
        Ok(Self { memory_kib, time, lanes })
    }

    /// The cheapest allowed parameters: 19 MiB, one pass. For tests and the smallest boards.
    #[must_use]
    pub const fn lightest() -> Self {
        Self { memory_kib: Self::MIN_MEMORY_KIB, time: 1, lanes: 1 }
    }

    /// KiB of memory.
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes.
    #[must_use]
    pub const fn time(self) -> u32 {
        self.time
    }

    /// Lanes.
    #[must_use]
    pub const fn lanes(self) -> u8 {
        self.lanes
    }

    /// Derives the 32-byte key of a password.
    pub(crate) fn derive(
        self,
        password: &[u8],
        salt: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, FileError> {
        let cost = Cost { memory_kib: self.memory_kib, time: self.time, lanes: self.lanes.into() };
        argon2(Algorithm::Argon2id, cost, password, salt)
    }
}

impl Default for KdfParams {
    /// 64 MiB, 3 passes, one lane (`spec/wallet.md` 13.3).
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, time: 3, lanes: 1 }
    }
}

/// Raw Argon2 cost, for foreign files; the caller has bounded it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) time: u32,
    pub(super) lanes: u32,
}

/// Argon2 version 0x13 with 32 bytes of output; its memory is erased afterwards.
pub(super) fn argon2(
    algorithm: Algorithm,
    cost: Cost,
    password: &[u8],
    salt: &[u8],
) -> Result<Zeroizing<[u8; 32]>, FileError> {
    let params = Params::new(cost.memory_kib, cost.time, cost.lanes, Some(32))
        .map_err(|_| FileError::ExcessiveKdf)?;
    // An allocation that fails must be an error, not the end of the process.
    let mut memory: Vec<Block> = Vec::new();
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|_| FileError::OutOfMemory { kib: cost.memory_kib })?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0; 32]);
    let result = Argon2::new(algorithm, Version::V0x13, params).hash_password_into_with_memory(
        password,
        salt,
        &mut *key,
        &mut memory,
    );
    memory.iter_mut().for_each(Zeroize::zeroize);
    // Fails only for a salt shorter than 8 bytes, which the callers' types exclude, or a password of
    // 4 GiB.
    result.map_err(|_| FileError::Damaged("key derivation"))?;
    Ok(key)
}

/// The key of an open wallet's file: checks its password again without keeping it.
pub(crate) struct PasswordCheck {
    params: KdfParams,
    salt: [u8; 16],
    key: Zeroizing<[u8; 32]>,
}

impl PasswordCheck {
    pub(crate) const fn new(params: KdfParams, salt: [u8; 16], key: Zeroizing<[u8; 32]>) -> Self {
        Self { params, salt, key }
    }

    /// What the password was made into, and the file is encrypted with.
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Runs the key derivation and compares in constant time.
    pub(crate) fn verify(&self, password: &[u8]) -> Result<bool, FileError> {
        let key = self.params.derive(password, &self.salt)?;
        Ok(key.ct_eq(&*self.key).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_a_floor_and_a_ceiling() {
        assert!(KdfParams::new(19 * 1024, 1, 1).is_ok());
        assert!(KdfParams::new(256 * 1024, 64, 8).is_ok());
        for (memory, time, lanes) in [
            (19 * 1024 - 1, 1, 1),
            (256 * 1024 + 1, 1, 1),
            (u32::MAX, 1, 1),
            (65_536, 0, 1),
            (65_536, 65, 1),
            (65_536, 3, 0),
            (65_536, 3, 9),
        ] {
            assert_eq!(KdfParams::new(memory, time, lanes), Err(FileError::ExcessiveKdf));
        }
    }

    #[test]
    fn verifies_the_password_and_no_other() {
        let params = KdfParams::lightest();
        let key = params.derive(b"right", &[1; 16]).expect("bounded");
        let check = PasswordCheck::new(params, [1; 16], key);
        assert_eq!(check.verify(b"right"), Ok(true));
        assert_eq!(check.verify(b"wrong"), Ok(false));
        assert_eq!(check.verify(b""), Ok(false));
    }
}
