//! The remote's part of a pairing: one value for each message that it waits for.

use ::noise::open;
use snow::{HandshakeState, TransportState};
use spake2::{Ed25519Group, Password, Spake2};
use wire::control::{Answer, Hello};

use super::{
    Code, Frame, Identities, KEY_LEN, PAIRING, PairError, Paired, SPAKE2_LEN, VERSION, broken, goes_on,
    noise, prologue, shared, split,
};
use crate::{MAX_HANDSHAKE, PublicKey, SecretKey};

/// Has asked for a pairing.
pub struct Asking {
    me: SecretKey,
    ask: Frame,
}

/// The host's offer. The key in it is proved by nothing yet.
pub struct Offer {
    asking: Asking,
    offer: Frame,
    host: PublicKey,
    b: [u8; SPAKE2_LEN],
}

/// Has answered the offer.
pub struct Proving {
    host: PublicKey,
    noise: HandshakeState,
}

/// Has proved that it knows the code, and waits for the same of the host.
pub struct Waiting {
    host: PublicKey,
    noise: TransportState,
}

impl Asking {
    /// Asks, as `me`; the message is the first of the connection.
    #[must_use]
    pub fn new(me: &SecretKey) -> (Self, Frame) {
        let ask = [&[PAIRING, VERSION], &me.public().0[..]].concat();
        (Self { me: me.clone(), ask: ask.clone() }, ask)
    }

    /// Reads the host's offer.
    ///
    /// # Errors
    /// The host expects nobody, or what came is no offer.
    pub fn offered(self, frame: &[u8]) -> Result<Offer, PairError> {
        let ([version], rest) = split(goes_on(frame)?)?;
        let (host, rest) = split::<KEY_LEN>(rest)?;
        match (version, rest.try_into()) {
            (VERSION, Ok(b)) => Ok(Offer { asking: self, offer: frame.to_vec(), host: PublicKey(host), b }),
            (VERSION, Err(_)) => Err(PairError::Unproved("an offer of another size")),
            _ => Err(PairError::Version),
        }
    }
}

impl Offer {
    /// The key that the host says is its own. Whoever knows another one of this host should stop here.
    #[must_use]
    pub fn host(&self) -> PublicKey {
        self.host
    }

    /// Answers with the code that people carried here.
    ///
    /// # Errors
    /// The offer is not SPAKE2's.
    pub fn accept(self, code: &Code) -> Result<(Proving, Frame), PairError> {
        let Self { asking: Asking { me, ask }, offer, host, b } = self;
        let ids = Identities::new(me.public(), host);
        let (spake2, a) =
            Spake2::<Ed25519Group>::start_a(&Password::new(code.digits()), &ids.remote, &ids.host);
        let psk = shared(spake2, &b)?;
        let prologue = prologue(&ask, &offer, &a);
        let mut noise = noise(&me, &psk, &prologue)?.build_initiator().map_err(broken)?;
        let mut message = [0; MAX_HANDSHAKE];
        let len = noise.write_message(&[], &mut message).map_err(broken)?;
        Ok((Proving { host, noise }, [&a, &message[..len]].concat()))
    }
}

impl Proving {
    /// Proves that this end knows the code. Only the host of the offer, or who guessed the code, can read it.
    ///
    /// # Errors
    /// What came is not the host's message, or `hello` is too long.
    pub fn prove(mut self, frame: &[u8], hello: &Hello) -> Result<(Waiting, Frame), PairError> {
        let payload = open(&mut self.noise, goes_on(frame)?).map_err(broken)?;
        if !payload.is_empty() || self.noise.get_remote_static() != Some(&self.host.0) {
            return Err(PairError::Unproved("not the key that was announced"));
        }
        let mut message = vec![0; MAX_HANDSHAKE];
        let len = self.noise.write_message(&hello.encode(), &mut message).map_err(broken)?;
        message.truncate(len);
        let noise = self.noise.into_transport_mode().map_err(broken)?;
        Ok((Waiting { host: self.host, noise }, message))
    }
}

impl Waiting {
    /// Reads what the host has decided; that it can be read proves that the host knows the code.
    ///
    /// # Errors
    /// The code is wrong, the host does not prove that it knows it, or refuses.
    pub fn told(mut self, frame: &[u8]) -> Result<Paired, PairError> {
        let message = goes_on(frame)?;
        let mut payload = vec![0; message.len()];
        let len = self.noise.read_message(message, &mut payload).map_err(broken)?;
        match Answer::decode(&payload[..len])? {
            Answer::Welcome { vm } => Ok(Paired { host: self.host, vm }),
            Answer::Refused { reason, text } => Err(PairError::Refused { reason, text }),
        }
    }
}
