// One request by Node's own fetch, which goes by HTTPS_PROXY where NODE_USE_ENV_PROXY=1, and believes NODE_EXTRA_CA_CERTS.
// Prints `{status, body}` or `{error}`. Node 24 or newer.

const SECONDS = 20;
const [url] = process.argv.slice(2);
const key = process.env.OPENAI_API_KEY;

if (url === undefined || key === undefined) {
  console.error('usage: OPENAI_API_KEY=KEY node reach_fetch.mjs URL');
  process.exit(2);
}
try {
  const response = await fetch(url, {
    headers: { authorization: `Bearer ${key}` },
    signal: AbortSignal.timeout(SECONDS * 1000),
  });
  console.log(JSON.stringify({ status: response.status, body: await response.text() }));
} catch (error) {
  // Whatever ends the run belongs in the report; fetch says why in the cause.
  console.log(JSON.stringify({ error: `${error.message}: ${error.cause?.message ?? ''}` }));
  process.exitCode = 1;
}
