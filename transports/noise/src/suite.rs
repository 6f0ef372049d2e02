//! Which cipher: the remote chooses what its processor does best, a host takes either.

/// A Noise suite. Its number leads the first handshake message; as the suite's name is hashed into the handshake, a
/// changed number only makes the handshake fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// Fast everywhere.
    ChaChaPoly = 1,
    /// Faster where the processor has instructions for it: a loopback copy gains a quarter to a half.
    AesGcm = 2,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 2] = [Self::ChaChaPoly, Self::AesGcm];

    /// The one that this processor does best.
    #[must_use]
    pub fn best() -> Self {
        if has_aes() { Self::AesGcm } else { Self::ChaChaPoly }
    }

    /// The suite with this number, if there is one.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| *suite as u8 == number)
    }

    /// As Noise writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaChaPoly => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
            Self::AesGcm => "Noise_IK_25519_AESGCM_BLAKE2s",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("avx")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}
