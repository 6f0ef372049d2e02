// The remote's end of a session over one link, and what a USB device of JavaScript answers. transports/session, wire.
import { concat } from './noise.js';

const DATA = 1, PING = 3, PONG = 4, RECEIVED = 6, HELLO = 16, WELCOME = 17;
const FIRST = 1, LAST = 2, FROM_HOST = 4;
const HEADER = 32, WINDOW = 256 << 10;
export const LANES = ['ctl', 'int', 'audio', 'iso', 'bulk'];
const loses = (lane) => lane === 2 || lane === 3;

// MessagePack, as far as it is needed.
export function pack(value) {
  const text = new TextEncoder();
  if (typeof value === 'boolean') return Uint8Array.of(value ? 0xc3 : 0xc2);
  if (typeof value === 'number') return Uint8Array.of(0xcd, value >> 8, value & 255);
  if (typeof value === 'string') {
    const bytes = text.encode(value);
    return concat(Uint8Array.of(0xd9, bytes.length), bytes);
  }
  const entries = Object.entries(value);
  return concat(Uint8Array.of(0x80 | entries.length), ...entries.flatMap(([name, item]) => [pack(name), pack(item)]));
}

export function unpack(bytes) {
  let at = 0;
  const text = (length) => new TextDecoder().decode(bytes.subarray(at, (at += length)));
  const next = () => {
    const kind = bytes[at++];
    if (kind < 0x80) return kind;
    if (kind < 0x90) return Object.fromEntries(Array.from({ length: kind & 15 }, () => [next(), next()]));
    if (kind >= 0xa0 && kind < 0xc0) return text(kind & 31);
    if (kind === 0xd9) return text(bytes[at++]);
    if (kind === 0xc2 || kind === 0xc3) return kind === 0xc3;
    throw new Error(`MessagePack of kind ${kind}`);
  };
  return next();
}

export class Session {
  // `send(lane, frame)`: to the link. `message(lane, bytes)`: from the host.
  constructor(send, message) {
    Object.assign(this, { send, message, pongs: 0, pings: 0 });
    this.welcome = new Promise((welcomed) => { this.welcomed = welcomed; });
    this.tx = LANES.map(() => 0n);
    this.rx = LANES.map(() => ({ next: 0n, early: new Map(), partial: [] }));
    this.sent = LANES.map(() => 0);
    this.received = LANES.map(() => 0);
  }

  frame(lane, kind, flags, seq, ack, limit, body = new Uint8Array()) {
    const header = new DataView(new ArrayBuffer(HEADER));
    header.setUint8(0, kind);
    header.setUint8(1, flags);
    [seq, ack, limit].forEach((value, at) => header.setBigUint64(8 + 8 * at, BigInt(value), true));
    this.send(lane, concat(new Uint8Array(header.buffer), body));
  }

  hello() { this.frame(0, HELLO, 0, 0, 0, 0, Uint8Array.of(1, 0, 1, 0)); }

  ping() { this.frame(0, PING, 0, 1, 0, 0); }

  // A message of one chunk.
  say(lane, message) {
    const next = this.rx[lane].next;
    const [ack, limit] = loses(lane) ? [0n, 0n] : [next, next + BigInt(WINDOW)];
    this.frame(lane, DATA, FIRST | LAST, this.tx[lane], ack, limit, message);
    this.tx[lane] += BigInt(HEADER + message.length);
    this.sent[lane]++;
  }

  // A frame of the host.
  take(lane, frame) {
    const header = new DataView(frame.buffer, frame.byteOffset, HEADER);
    const [kind, flags, seq] = [header.getUint8(0), header.getUint8(1), header.getBigUint64(8, true)];
    if (!(flags & FROM_HOST)) throw new Error('a frame of our own');
    const body = frame.slice(HEADER);
    if (kind === WELCOME) this.welcomed(body);
    if (kind === PONG) this.pongs++;
    if (kind === PING) { this.pings++; this.frame(0, PONG, 0, seq, 0, 0); }
    if (kind !== DATA) return;
    const rx = this.rx[lane];
    if (loses(lane)) return this.piece(lane, rx, flags, body);
    if (seq >= rx.next) rx.early.set(seq, [flags, body]);
    for (let piece; (piece = rx.early.get(rx.next)); ) {
      rx.early.delete(rx.next);
      rx.next += BigInt(HEADER + piece[1].length);
      this.piece(lane, rx, ...piece);
    }
    this.frame(lane, RECEIVED, 0, rx.next, rx.next, rx.next + BigInt(WINDOW));
  }

  piece(lane, rx, flags, body) {
    if (flags & FIRST) rx.partial = [];
    rx.partial.push(body);
    if (!(flags & LAST)) return;
    this.received[lane]++;
    this.message(lane, concat(...rx.partial));
  }
}

// The answer to a USB request: `device(transfer, endpoint, data or length, setup)` gives the data of an IN.
export function complete(message, device) {
  const head = new DataView(message.buffer, message.byteOffset);
  const [kind, transfer, endpoint, input] = message;
  if (kind !== 0x10 && kind !== 0x12 && kind !== 0x13) return null;
  const answer = new Uint8Array(32);
  const end = new DataView(answer.buffer);
  answer[0] = 0x18;
  answer.set(message.subarray(8, 16), 8);
  if (kind !== 0x10) return answer;
  const [length, count] = [head.getUint32(24, true), head.getUint16(30, true)];
  answer[3] = input;
  const isochronous = transfer === 1;
  const out = message.subarray(32 + 2 * (isochronous ? count : 0));
  const data = device(transfer, endpoint, input ? length : out, message.subarray(16, 24)) ?? new Uint8Array();
  end.setUint32(24, input ? data.length : length, true);
  if (!isochronous) return concat(answer, input ? data : new Uint8Array());
  end.setUint16(30, count, true);
  const table = new DataView(new ArrayBuffer(4 * count));
  for (let packet = 0; packet < count; packet++) table.setUint16(4 * packet, head.getUint16(32 + 2 * packet, true), true);
  return concat(answer, new Uint8Array(table.buffer), input ? data : new Uint8Array());
}
