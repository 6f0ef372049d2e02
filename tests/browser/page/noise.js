// Noise_IK_25519_AESGCM_BLAKE2s, the initiator's side, with WebCrypto and a BLAKE2s of its own. Noise rev. 34; RFC 7693.
const IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const SIGMA = ['0123456789abcdef', 'ea489fd61c02b753', 'b8c052fdae367194', '7931dcbe265a40f8', '905724afe1bc683d',
  '2c6a0b834d75fe19', 'c51fed4a0763928b', 'db7ec13950f4862a', '6fe9b308c2d714a5', 'a2847615fb9e3cd0']
  .map((row) => [...row].map((digit) => parseInt(digit, 16)));

export const concat = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
};

// BLAKE2s of 32 bytes, without a key.
export function blake2s(input) {
  const h = Uint32Array.from(IV);
  h[0] ^= 0x01010020;
  const blocks = Math.max(1, Math.ceil(input.length / 64));
  for (let block = 0; block < blocks; block++) {
    const last = block === blocks - 1;
    const bytes = new Uint8Array(64);
    bytes.set(input.subarray(block * 64, block * 64 + 64));
    const m = new Uint32Array(bytes.buffer);
    const v = new Uint32Array(16);
    v.set(h);
    v.set(IV, 8);
    v[12] ^= last ? input.length : (block + 1) * 64;
    if (last) v[14] = ~v[14];
    const turn = (at, by, bits) => { const x = v[at] ^ v[by]; v[at] = (x >>> bits) | (x << (32 - bits)); };
    const mix = (a, b, c, d, x, y) => {
      v[a] += v[b] + x; turn(d, a, 16); v[c] += v[d]; turn(b, c, 12);
      v[a] += v[b] + y; turn(d, a, 8); v[c] += v[d]; turn(b, c, 7);
    };
    for (const s of SIGMA) {
      mix(0, 4, 8, 12, m[s[0]], m[s[1]]); mix(1, 5, 9, 13, m[s[2]], m[s[3]]);
      mix(2, 6, 10, 14, m[s[4]], m[s[5]]); mix(3, 7, 11, 15, m[s[6]], m[s[7]]);
      mix(0, 5, 10, 15, m[s[8]], m[s[9]]); mix(1, 6, 11, 12, m[s[10]], m[s[11]]);
      mix(2, 7, 8, 13, m[s[12]], m[s[13]]); mix(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (let i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
  }
  return new Uint8Array(h.buffer);
}

function hmac(key, data) {
  const pad = (byte) => Uint8Array.from({ length: 64 }, (_, at) => (key[at] ?? 0) ^ byte);
  return blake2s(concat(pad(0x5c), blake2s(concat(pad(0x36), data))));
}

function hkdf(chaining, input) {
  const secret = hmac(chaining, input);
  const first = hmac(secret, Uint8Array.of(1));
  return [first, hmac(secret, concat(first, Uint8Array.of(2)))];
}

const X25519 = { name: 'X25519' };

async function keypair() {
  const pair = await crypto.subtle.generateKey(X25519, true, ['deriveBits']);
  const raw = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey));
  return { secret: pair.privateKey, public: raw };
}

async function shared(own, theirs) {
  const key = await crypto.subtle.importKey('raw', theirs, X25519, true, []);
  return new Uint8Array(await crypto.subtle.deriveBits({ ...X25519, public: key }, own.secret, 256));
}

async function cipher(how, key, n, data, ad) {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(n));
  const aes = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, [how]);
  return new Uint8Array(await crypto.subtle[how]({ name: 'AES-GCM', iv: nonce, additionalData: ad }, aes, data));
}

// One handshake: `first(payload)` is to be sent, `second(message)` gives the host's payload, `proof()` is to be sent.
export class Initiator {
  static async begin(prologue, host) {
    const self = new Initiator();
    const name = new TextEncoder().encode('Noise_IK_25519_AESGCM_BLAKE2s');
    self.h = concat(name, new Uint8Array(32 - name.length));
    self.ck = self.h;
    self.host = host;
    [self.s, self.e] = [await keypair(), await keypair()];
    self.hash(prologue);
    self.hash(host);
    return self;
  }

  hash(data) { this.h = blake2s(concat(this.h, data)); }

  async mix(own, theirs) {
    [this.ck, this.k] = hkdf(this.ck, await shared(own, theirs));
    this.n = 0;
  }

  async seal(data) {
    const sealed = await cipher('encrypt', this.k, this.n++, data, this.h);
    this.hash(sealed);
    return sealed;
  }

  async first(payload) {
    this.hash(this.e.public);
    await this.mix(this.e, this.host);
    const key = await this.seal(this.s.public);
    await this.mix(this.s, this.host);
    return concat(this.e.public, key, await this.seal(payload));
  }

  async second(message) {
    const theirs = message.subarray(0, 32);
    this.hash(theirs);
    await this.mix(this.e, theirs);
    await this.mix(this.s, theirs);
    return cipher('decrypt', this.k, this.n, message.subarray(32), this.h);
  }

  proof() {
    return cipher('encrypt', hkdf(this.ck, new Uint8Array())[0], 0, new Uint8Array(), new Uint8Array());
  }
}
