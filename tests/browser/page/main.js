// A remote that shares no code with ours: asks by HTTP, proves who it is, lends a device, listens.
import { Initiator, concat } from './noise.js';
import { LANES, Session, complete, pack, unpack } from './session.js';

const report = (event, more = {}) =>
  fetch('/report', { method: 'POST', body: JSON.stringify({ event, ...more }) });
const fail = (error) => report('failed', { error: `${error?.stack ?? error}` });
addEventListener('error', (event) => fail(event.error));
addEventListener('unhandledrejection', (event) => fail(event.reason));

const bytes = (hex) => Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16));
const { vm, token, host, version } = await (await fetch('/asked')).json();

// Channels as the host's crate has them: ids, order and losses of the table there.
const connection = new RTCPeerConnection();
const channels = [...LANES, 'link'].map((name, id) => {
  const lossy = name === 'audio' || name === 'iso';
  const init = { negotiated: true, id, ordered: name === 'bulk' || name === 'link' };
  const channel = connection.createDataChannel(name, lossy ? { ...init, maxRetransmits: 0 } : init);
  channel.binaryType = 'arraybuffer';
  return channel;
});
const link = channels[5];
const opened = Promise.all(channels.map((channel) => new Promise((open) => { channel.onopen = open; })));
connection.addTransceiver('audio', { direction: 'recvonly' });
connection.ontrack = ({ track }) => {
  const audio = document.createElement('audio');
  audio.srcObject = new MediaStream([track]);
  audio.play().catch(() => {});
};

// What comes on the channel of the link, in order; and what lanes carry, put together.
const said = [];
let hear = null;
link.onmessage = ({ data }) => { said.push(new Uint8Array(data)); hear?.(); };
const next = async () => {
  while (said.length === 0) await new Promise((wake) => { hear = wake; });
  return said.shift();
};
const session = new Session((lane, frame) => channels[lane].send(concat(Uint8Array.of(0), frame)), message);
channels.slice(0, 5).forEach((channel, lane) => {
  let pieces = [];
  channel.onmessage = ({ data }) => {
    const [kind, rest] = [new Uint8Array(data)[0], new Uint8Array(data, 1)];
    if (kind > 1) return;
    pieces.push(rest);
    if (kind === 1) return;
    const frame = concat(...pieces);
    pieces = [];
    session.take(lane, frame);
  };
});

// The offer goes without candidates; they follow by PATCH.
const offer = await connection.createOffer();
let candidates = [];
connection.onicecandidate = ({ candidate }) => {
  if (candidate?.candidate) candidates.push(`a=${candidate.candidate}`);
};
const gathered = async () => {
  while (connection.iceGatheringState !== 'complete') {
    await new Promise((changed) => { connection.onicegatheringstatechange = changed; });
  }
};
await connection.setLocalDescription(offer);
const bearer = { Authorization: `Bearer ${token}` };
const stereo = offer.sdp.replace(/(a=fmtp:111 [^\r\n]*)/, '$1;stereo=1');
const answer = await fetch(`/api/v1/vms/${vm}/rtc`, {
  method: 'POST', headers: { ...bearer, 'Content-Type': 'application/sdp' }, body: stereo,
});
if (answer.status !== 201) throw new Error(`the offer: ${answer.status} ${await answer.text()}`);
const [call, tag] = [answer.headers.get('Location'), answer.headers.get('ETag')];
const described = await answer.text();
await connection.setRemoteDescription({ type: 'answer', sdp: described });
await gathered();
const value = (name, sdp) => sdp.match(new RegExp(`a=${name}:[^\r\n]*`))[0];
const patch = (match, sdp) => fetch(call, {
  method: 'PATCH',
  headers: { ...bearer, 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': match },
  body: [value('ice-ufrag', sdp), value('ice-pwd', sdp), ...candidates, 'a=end-of-candidates', ''].join('\r\n'),
});
const more = await patch(tag, offer.sdp);
await report('candidates', { status: more.status, count: candidates.length });

// READY from both, then Noise over both certificates.
await opened;
link.send(Uint8Array.of(2));
const first = await next();
if (first[0] === 2) link.send(Uint8Array.of(3));
const own = bytes(value('fingerprint', offer.sdp).split(' ')[1].replaceAll(':', ''));
const [shown] = connection.sctp.transport.getRemoteCertificates();
const theirs = new Uint8Array(await crypto.subtle.digest('SHA-256', shown));
const prologue = concat(new TextEncoder().encode('farbus/1 webrtc'), own, theirs);
const noise = await Initiator.begin(prologue, bytes(host));
const hello = pack({ version, vm, name: 'page', signalling: false });
link.send(concat(Uint8Array.of(4, 2), await noise.first(hello)));
let second = await next();
while (second[0] !== 4) second = await next();
const welcome = unpack(await noise.second(second.subarray(1)));
link.send(concat(Uint8Array.of(4), await noise.proof()));
if (welcome.Welcome?.vm !== vm) throw new Error(JSON.stringify(welcome));

session.hello();
const identity = await session.welcome;
await report('welcome', { version: identity[0], bytes: identity.length });
session.ping();
// A device of ours, and something on AUDIO: frame 0 of a stream that does not play is missing.
const attached = { device: 7, speed: 'High', vendor: 0x1209, product: 1, name: 'page' };
session.say(0, concat(Uint8Array.of(1), pack({ Attached: attached })));
const missing = new Uint8Array(32 + 12);
missing.set([0x2d, 0]);
missing[40] = 1;
session.say(2, missing);

// The device: its descriptor, what was written to endpoint 1 with every byte turned, and sound of a kind.
let written = new Uint8Array();
function device(transfer, endpoint, what, setup) {
  const descriptor = [18, 1, 0, 2, 0xff, 0, 0, 64, 9, 0x12, 1, 0, 0, 1, 0, 0, 0, 1];
  if (transfer === 0 && setup[0] === 0x80) return Uint8Array.from(descriptor).slice(0, what);
  if (transfer === 2 && endpoint === 1) written = what.slice();
  if (transfer === 2 && endpoint === 0x81) return written.map((byte) => byte ^ 0xff).slice(0, what);
  return transfer === 1 ? new Uint8Array(what).fill(0x5a) : null;
}

let paused = false;
function message(lane, bytes) {
  paused ||= lane === 2 && bytes[0] === 0x21;
  const answer = complete(bytes, device);
  if (answer) session.say(lane, answer);
}

// Until the test stops the sound, and after it.
let heard = false;
for (;;) {
  const stats = [...(await connection.getStats()).values()];
  const sound = stats.find((one) => one.type === 'inbound-rtp' && one.kind === 'audio');
  const packets = sound?.packetsReceived ?? 0;
  const codec = stats.find((one) => one.id === sound?.codecId)?.mimeType;
  if (!heard && packets >= 100) {
    heard = true;
    await report('heard', { packets, codec, energy: sound.totalAudioEnergy });
  }
  const { sent, received, pings, pongs } = session;
  if (paused && pings > 0 && pongs > 0 && [...sent, ...received].every((count) => count > 0)) {
    await report('lanes', { sent, received, pings, pongs });
    break;
  }
  await new Promise((later) => setTimeout(later, 50));
}

// Another network: new credentials on both sides, the same connection. What the host says replaces its lines.
candidates = [];
const again = await connection.createOffer({ iceRestart: true });
await connection.setLocalDescription(again);
await gathered();
const restart = await patch('*', again.sdp);
const fragment = await restart.text();
const ours = described
  .replace(/a=candidate:[^\r\n]*\r\n/g, '')
  .replace(/a=ice-ufrag:[^\r\n]*/g, value('ice-ufrag', fragment))
  .replace(/a=ice-pwd:[^\r\n]*/g, () => [value('ice-pwd', fragment), ...fragment.match(/a=candidate:[^\r\n]*/g)].join('\r\n'));
await connection.setRemoteDescription({ type: 'answer', sdp: ours });
const before = session.pongs;
session.ping();
while (session.pongs === before) await new Promise((later) => setTimeout(later, 50));
await report('restarted', { status: restart.status, tag: restart.headers.get('ETag'), stale: (await patch(tag, offer.sdp)).status });
const end = await fetch(call, { method: 'DELETE', headers: bearer });
await report('ended', { status: end.status });
