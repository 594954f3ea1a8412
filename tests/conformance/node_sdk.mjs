// Makes every call of a JSON list (standard input) with the official OpenAI SDK for Node.js, and
// says what came of each, as `python_sdk.py` does: {name: {body | chunks | error, headers}}.
import OpenAI from "openai";
import { readFileSync } from "node:fs";

const { url, key, calls } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 60_000 });
const endpoints = {
  chat: (body) => client.chat.completions.create(body),
  completions: (body) => client.completions.create(body),
  embeddings: (body) => client.embeddings.create(body),
};

async function seen({ call, body }) {
  const found = {};
  try {
    const { data, response } = await endpoints[call](body).withResponse();
    found.headers = Object.fromEntries(response.headers);
    if (!body.stream) return { ...found, body: data };
    found.chunks = [];
    for await (const chunk of data) found.chunks.push(chunk);
    return found;
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status = null, code, param, type } = error;
    const retryAfter = error.headers?.get("retry-after") ?? null;
    const name = error.constructor.name;
    return { ...found, error: { status, code, param, type, name, retry_after: retryAfter } };
  }
}

const results = {};
for (const call of calls) results[call.name] = await seen(call);
process.stdout.write(JSON.stringify(results));
