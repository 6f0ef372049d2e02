//! The two messages of Noise IK, and what they say.

use link::PeerKey;
use snow::{Builder, HandshakeState, TransportState};
use wire::{
    DecodeError,
    control::{Answer, Hello},
};

use crate::{PublicKey, SecretKey, Suite};

/// The longest handshake message, bytes.
pub const MAX_HANDSHAKE: usize = 1024;

/// Why a handshake message is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A message longer than [`MAX_HANDSHAKE`].
    #[error("handshake message of {0} bytes is too long")]
    TooLong(usize),
    /// The host cannot read the first message: it is for another key, or it is no handshake.
    #[error("the first message cannot be read: it was written for another host key, or by something else")]
    NotForUs,
    /// The peer's message does not decrypt: a replay, or somebody in between.
    #[error("the peer did not prove its key: {0}")]
    Unproved(String),
    /// What the peer says inside the handshake is malformed.
    #[error("malformed handshake payload: {0}")]
    Payload(#[from] DecodeError),
}

/// The first handshake message as it came, to be handed to the process that finishes the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstFrame(Vec<u8>);

impl FirstFrame {
    /// The message that [`Self::as_bytes`] gave elsewhere.
    ///
    /// # Errors
    /// It is longer than [`MAX_HANDSHAKE`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageError> {
        if bytes.len() > MAX_HANDSHAKE { Err(MessageError::TooLong(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// The message, without its length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who says hello. Not proved yet: the message may be a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key of whoever wrote the message at some time.
    pub key: PublicKey,
    /// What it said.
    pub hello: Hello,
}

/// A handshake whose messages are all written and read.
pub struct Finished {
    /// The ciphers of both directions. The initiator's first message proves its key to the responder.
    pub transport: TransportState,
    /// The peer's key.
    pub peer: PeerKey,
    /// The handshake hash: both ends have it, and no other pair.
    pub binding: [u8; 32],
}

/// The remote's side, between the two messages.
pub struct Initiator(HandshakeState);

impl Initiator {
    /// Writes the first message, to `host`, as `me`. `prologue` has to be the host's as well.
    ///
    /// # Errors
    /// The hello is too long, or `host` is no key.
    pub fn begin(
        suite: Suite,
        prologue: &[u8],
        host: PublicKey,
        me: &SecretKey,
        hello: &Hello,
    ) -> Result<(Self, FirstFrame), MessageError> {
        let builder = builder(suite, prologue, me)?.remote_public_key(&host.0).map_err(unproved)?;
        let mut noise = builder.build_initiator().map_err(unproved)?;
        let mut message = vec![suite as u8];
        message.append(&mut write(&mut noise, &hello.encode())?);
        Ok((Self(noise), FirstFrame::from_bytes(message)?))
    }

    /// Reads the second message: the host's answer, whichever it is.
    ///
    /// # Errors
    /// The host does not own its key, or what it says is malformed.
    pub fn finish(mut self, message: &[u8]) -> Result<(Answer, Finished), MessageError> {
        let answer = open(&mut self.0, message).map_err(unproved)?;
        Ok((Answer::decode(&answer)?, finished(self.0)?))
    }
}

/// The host's side, between the two messages.
pub struct Responder(HandshakeState);

impl Responder {
    /// Reads who wrote the first message. Costs two Diffie-Hellman operations.
    ///
    /// # Errors
    /// The message is not for this key and prologue, or what it says is malformed.
    pub fn read(first: &FirstFrame, prologue: &[u8], me: &SecretKey) -> Result<(Self, Caller), MessageError> {
        let (suite, message) = first.0.split_first().ok_or(MessageError::NotForUs)?;
        let suite = Suite::from_wire(*suite).ok_or(MessageError::NotForUs)?;
        let mut noise = builder(suite, prologue, me)?.build_responder().map_err(unproved)?;
        let hello = open(&mut noise, message).map_err(|_| MessageError::NotForUs)?;
        let key = PublicKey(remote_static(&noise)?);
        Ok((Self(noise), Caller { key, hello: Hello::decode(&hello)? }))
    }

    /// Writes the second message.
    ///
    /// # Errors
    /// The answer is too long.
    pub fn answer(mut self, answer: &Answer) -> Result<(Vec<u8>, Finished), MessageError> {
        let message = write(&mut self.0, &answer.encode())?;
        Ok((message, finished(self.0)?))
    }
}

fn builder<'a>(suite: Suite, prologue: &'a [u8], me: &'a SecretKey) -> Result<Builder<'a>, MessageError> {
    let suite = suite.name().parse().map_err(unproved)?;
    Builder::new(suite).prologue(prologue).and_then(|b| b.local_private_key(me.as_bytes())).map_err(unproved)
}

fn write(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, MessageError> {
    let mut message = vec![0; MAX_HANDSHAKE];
    let len = noise.write_message(payload, &mut message).map_err(|_| MessageError::TooLong(payload.len()))?;
    message.truncate(len);
    Ok(message)
}

/// The payload of a handshake message.
///
/// # Errors
/// It does not decrypt, or is out of order.
pub fn open(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let len = noise.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

fn remote_static(noise: &HandshakeState) -> Result<[u8; 32], MessageError> {
    let key = noise.get_remote_static().and_then(|key| key.try_into().ok());
    key.ok_or_else(|| MessageError::Unproved("no static key".to_owned()))
}

fn finished(noise: HandshakeState) -> Result<Finished, MessageError> {
    let peer = PeerKey(remote_static(&noise)?);
    // BLAKE2s: 32 bytes. To be taken before the handshake's state goes.
    let mut binding = [0; 32];
    binding.copy_from_slice(noise.get_handshake_hash());
    Ok(Finished { transport: noise.into_transport_mode().map_err(unproved)?, peer, binding })
}

fn unproved(error: snow::Error) -> MessageError {
    MessageError::Unproved(error.to_string())
}
