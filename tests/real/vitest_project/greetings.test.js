// A few tests as a user of `stigmer local run --ephemeral -- npx vitest run`
// writes them: the address and the namespace come from the environment.

import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, expect, test } from 'vitest';

let connection;
let client;

beforeAll(async () => {
  connection = await Connection.connect({ address: process.env.TEMPORAL_ADDRESS });
  client = new Client({ connection, namespace: process.env.TEMPORAL_NAMESPACE });
});

afterAll(() => connection.close());

test('Temporal serves', async () => {
  const { serverVersion } = await connection.workflowService.getSystemInfo({});
  expect(serverVersion).toMatch(/^\d+\.\d+\.\d+/);
});

test('a workflow waits for its worker', async () => {
  const handle = await client.workflow.start('greeting', { taskQueue: 'greetings', workflowId: 'one', args: ['Ada'] });
  expect((await handle.describe()).status.name).toBe('RUNNING');
});

test('a workflow can be ended', async () => {
  const handle = await client.workflow.start('greeting', { taskQueue: 'greetings', workflowId: 'two' });
  await handle.terminate('no longer wanted');
  expect((await handle.describe()).status.name).toBe('TERMINATED');
});
