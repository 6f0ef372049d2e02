//! The host's part of a pairing: one value for each message that it waits for.

use ::noise::open;
use snow::{HandshakeState, TransportState};
use spake2::{Ed25519Group, Password, Spake2};
use wire::control::{Answer, Hello};

use super::{
    Code, Frame, GO_ON, Identities, KEY_LEN, PAIRING, PairError, SPAKE2_LEN, VERSION, broken, noise,
    prologue, shared, split,
};
use crate::{FirstFrame, MAX_HANDSHAKE, PublicKey, SecretKey};

/// A remote asks for a pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    ask: Frame,
    remote: PublicKey,
}

/// The host has made its offer.
pub struct Offered {
    me: SecretKey,
    ask: Frame,
    offer: Frame,
    remote: PublicKey,
    spake2: Spake2<Ed25519Group>,
}

/// The remote has yet to prove that it knows the code.
pub struct Judging {
    remote: PublicKey,
    noise: HandshakeState,
}

/// A remote that knows the code.
pub struct Guest {
    key: PublicKey,
    hello: Hello,
    noise: TransportState,
}

impl Asked {
    /// Whether this is the first message of a pairing, and not of the handshake of those who know each other.
    #[must_use]
    pub fn is(first: &FirstFrame) -> bool {
        first.as_bytes().first() == Some(&PAIRING)
    }

    /// Reads the first message.
    ///
    /// # Errors
    /// It is of another version, or none.
    pub fn read(first: &FirstFrame) -> Result<Self, PairError> {
        let ask = first.as_bytes();
        let ([kind, version], key) = split(ask)?;
        match (kind, version, <[u8; KEY_LEN]>::try_from(key)) {
            (PAIRING, VERSION, Ok(key)) => Ok(Self { ask: ask.to_vec(), remote: PublicKey(key) }),
            (PAIRING, VERSION, Err(_)) => Err(PairError::Unproved("a question of another size")),
            (PAIRING, ..) => Err(PairError::Version),
            _ => Err(PairError::Unproved("not a message of a pairing")),
        }
    }

    /// Offers to pair whoever knows this code. Nothing in the offer can be used to test codes.
    #[must_use]
    pub fn offer(self, me: &SecretKey, code: &Code) -> (Offered, Frame) {
        let ids = Identities::new(self.remote, me.public());
        let (spake2, b) = Spake2::start_b(&Password::new(code.digits()), &ids.remote, &ids.host);
        let offer = [&[GO_ON, VERSION], &me.public().0[..], &b].concat();
        let Self { ask, remote } = self;
        (Offered { me: me.clone(), ask, offer: offer.clone(), remote, spake2 }, offer)
    }
}

impl Offered {
    /// Goes on with a remote that has taken the offer.
    ///
    /// # Errors
    /// What came is not a pairing's.
    pub fn taken(self, frame: &[u8]) -> Result<(Judging, Frame), PairError> {
        let (a, message) = split::<SPAKE2_LEN>(frame)?;
        let psk = shared(self.spake2, &a)?;
        let prologue = prologue(&self.ask, &self.offer, &a);
        let mut noise = noise(&self.me, &psk, &prologue)?.build_responder().map_err(broken)?;
        if !open(&mut noise, message).map_err(broken)?.is_empty() {
            return Err(PairError::Unproved("a message with something in it"));
        }
        let mut answer = vec![GO_ON; MAX_HANDSHAKE];
        let len = noise.write_message(&[], &mut answer[1..]).map_err(broken)?;
        answer.truncate(1 + len);
        Ok((Judging { remote: self.remote, noise }, answer))
    }
}

impl Judging {
    /// Judges the remote's proof. **Who calls this has spent one of the code's tries before**: whether it succeeds is
    /// what somebody who guesses wants to know.
    ///
    /// # Errors
    /// The remote does not know the code, or is another one than it said.
    pub fn judge(mut self, frame: &[u8]) -> Result<Guest, PairError> {
        let hello = open(&mut self.noise, frame).map_err(broken)?;
        if self.noise.get_remote_static() != Some(&self.remote.0) {
            return Err(PairError::Unproved("not the key that was announced"));
        }
        let hello = Hello::decode(&hello)?;
        let noise = self.noise.into_transport_mode().map_err(broken)?;
        Ok(Guest { key: self.remote, hello, noise })
    }
}

impl Guest {
    /// Its key, proved.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// What it said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Tells it what has been decided; that it can be read proves that this host knows the code, too.
    ///
    /// # Errors
    /// The answer is too long.
    pub fn tell(mut self, answer: &Answer) -> Result<Frame, PairError> {
        let mut frame = vec![GO_ON; MAX_HANDSHAKE];
        let len = self.noise.write_message(&answer.encode(), &mut frame[1..]).map_err(broken)?;
        frame.truncate(1 + len);
        Ok(frame)
    }
}
