// Vercel's AI SDK over its provider for OpenAI-compatible endpoints: generate, stream, abort, errors.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

const installed = createRequire(process.env.COMPAT_ENVIRONMENT + '/');
const load = name => import(pathToFileURL(installed.resolve(name)));
const { APICallError, generateObject, generateText, streamText } = await load('ai');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');

const lane = JSON.parse(process.env.COMPAT_LANE);
const excluded = new Set(JSON.parse(process.env.COMPAT_EXCLUDED));
const TEXT = 'one two three';
const SHORT_MS = 500;

const model = (more = {}) =>
  createOpenAICompatible({
    name: 'leased',
    baseURL: process.env.OPENAI_BASE_URL,
    apiKey: process.env.OPENAI_API_KEY,
    includeUsage: true,
    ...more,
  }).chatModel(lane.model);
const saying = text => lane.says.replace('{}', text);
const sayingJson = text => lane.says_json.replace('{}', text);
const check = (name, action) => test(name, { skip: excluded.has(name) }, action);

check('generate', async () => {
  const answer = await generateText({ model: model(), prompt: saying(TEXT) });
  assert.equal(answer.text, TEXT);
  assert.equal(answer.finishReason, 'stop');
  assert.ok(answer.usage.inputTokens > 0);
  assert.ok(answer.usage.outputTokens > 0);
  assert.ok(answer.response.id.startsWith('chatcmpl-'));
  assert.equal(answer.response.modelId, lane.model);
});

check('stream', async () => {
  const stream = streamText({ model: model(), prompt: saying(TEXT) });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.equal(pieces.join(''), TEXT);
  assert.ok(pieces.length > 1);
  assert.equal(await stream.finishReason, 'stop');
  assert.ok((await stream.usage).outputTokens > 0);
});

check('a conversation', async () => {
  const { text } = await generateText({
    model: model(),
    system: 'You are brief.',
    messages: [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hello, what is it?' },
      { role: 'user', content: [{ type: 'text', text: saying('nothing') }] },
    ],
  });
  assert.ok(text.includes('nothing'));
});

check('settings do no harm', async () => {
  const { text } = await generateText({
    model: model(), prompt: saying(TEXT), temperature: 0.1, maxOutputTokens: 100, seed: 1,
  });
  assert.equal(text, TEXT);
});

check('a wrong key', async () => {
  await assert.rejects(
    generateText({ model: model({ apiKey: 'wrong' }), prompt: 'x', maxRetries: 0 }),
    error => APICallError.isInstance(error) && error.statusCode === 401 && error.data.error.code === 'unauthorized',
  );
});

check('a refusal of the service', async () => {
  await assert.rejects(
    generateText({ model: model(), prompt: lane.fails, maxRetries: 0 }),
    error => APICallError.isInstance(error) && error.statusCode === 429,
  );
});

check('a stream that breaks off', async () => {
  const errors = [];
  const stream = streamText({
    model: model(), prompt: lane.breaks, maxRetries: 0, onError: ({ error }) => errors.push(error),
  });
  for await (const _ of stream.textStream);
  assert.equal(errors.length, 1);
});

check('an aborted stream', async () => {
  const controller = new AbortController();
  const stream = streamText({ model: model(), prompt: lane.long, abortSignal: controller.signal, onError: () => {} });
  let pieces = 0;
  for await (const _ of stream.textStream) if (++pieces === 2) controller.abort();
  const { text } = await generateText({ model: model(), prompt: saying(TEXT) });
  assert.equal(text, TEXT);
});

check('an aborted call', async () => {
  await assert.rejects(
    generateText({ model: model(), prompt: lane.endless, maxRetries: 0, abortSignal: AbortSignal.timeout(SHORT_MS) }),
  );
});

check('tools are refused', async () => {
  const { tool, jsonSchema } = await load('ai');
  const tools = { f: tool({ inputSchema: jsonSchema({ type: 'object', properties: {} }) }) };
  await assert.rejects(
    generateText({ model: model(), prompt: 'x', tools, maxRetries: 0 }),
    error => error.statusCode === 400 && error.data.error.param === 'tools',
  );
});

check('structured output', async () => {
  const { jsonSchema } = await load('ai');
  const schema = jsonSchema({
    type: 'object',
    properties: { name: { type: 'string' }, age: { type: 'integer' } },
    required: ['name', 'age'],
    additionalProperties: false,
  });
  const { object } = await generateObject({
    model: model({ supportsStructuredOutputs: true }), schema, prompt: sayingJson('{"name": "Ada", "age": 36}'),
  });
  assert.deepEqual(object, { name: 'Ada', age: 36 });
});

check('an image', async () => {
  const image = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC', 'base64',
  );
  const content = [{ type: 'text', text: saying('I see') }, { type: 'image', image, mediaType: 'image/png' }];
  const { text } = await generateText({ model: model(), messages: [{ role: 'user', content }] });
  assert.equal(text, 'I see');
});
