// A device that asks a gateway of OpenClaw for scopes: its handshake, signed with a key of its own, and the answer as a
// line of JSON. Through a proxy, as the gateway sees it, so that nothing is approved because it came over the loopback.
//
// node asker.mjs PORT TOKEN KEYFILE CLIENT MODE SCOPES(,)
import crypto from 'node:crypto';
import fs from 'node:fs';

const [port, token, keyFile, client, mode, scopeList] = process.argv.slice(2);
if (!fs.existsSync(keyFile)) {
  const { privateKey } = crypto.generateKeyPairSync('ed25519');
  fs.writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
}
const key = crypto.createPrivateKey(fs.readFileSync(keyFile));
const raw = crypto.createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32);
const id = crypto.createHash('sha256').update(raw).digest('hex');
const scopes = scopeList.split(',');
const role = 'operator';

const socket = new WebSocket(`ws://127.0.0.1:${port}`, { headers: { 'X-Forwarded-For': '198.51.100.7' } });
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.event === 'connect.challenge') {
    const { nonce } = frame.payload;
    const signedAt = Date.now();
    const signed = ['v3', id, client, mode, role, scopeList, String(signedAt), token, nonce, 'linux', ''].join('|');
    const signature = crypto.sign(null, Buffer.from(signed), key).toString('base64url');
    const device = { id, publicKey: raw.toString('base64url'), signature, signedAt, nonce };
    const params = {
      minProtocol: 3, maxProtocol: 4, role, scopes, caps: [], auth: { token }, device,
      client: { id: client, version: '1.0.0', platform: 'linux', mode },
    };
    socket.send(JSON.stringify({ type: 'req', id: '1', method: 'connect', params }));
  } else if (frame.type === 'res') {
    const details = frame.error?.details ?? {};
    console.log(JSON.stringify({ at: Date.now(), ok: frame.ok, reason: details.reason, requestId: details.requestId, message: frame.error?.message }));
    socket.close();
    process.exit(0);
  }
};
socket.onerror = (error) => {
  console.log(JSON.stringify({ ok: false, message: String(error.message ?? error.type) }));
  process.exit(0);
};
