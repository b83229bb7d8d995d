// A model of your own: two towers place people and films in one space, and a small network on top
// predicts the rating.
import {
  adamw,
  add,
  concat,
  defineModel,
  defineRun,
  embedding,
  gelu,
  linear,
  mse,
  ratings,
  reshape,
} from "lockstep";

const folder = process.env.LOCKSTEP_DATA ?? "data";

const towers = defineModel("towers", (m) => {
  // Fields of the batch: the data fills them by name. The leading dim is the batch.
  const user = m.input("user", [m.batch], "int32");
  const item = m.input("item", [m.batch], "int32");
  const rating = m.input("rating", [m.batch]);

  // Every layer gets a scope, which names its parameters: `users.weight`, `hidden.weight`,
  // `hidden.bias`, …
  const person = embedding(m.child("users"), user, { vocabulary: 944, width: 16 });
  const film = embedding(m.child("items"), item, { vocabulary: 1683, width: 16 });
  const hidden = gelu(linear(m.child("hidden"), concat([person, film], 1), { outputs: 32 }));
  const bias = m.parameter("bias", [], { kind: "constant", value: 3.5 });
  const score = reshape(linear(m.child("score"), hidden, { outputs: 1, bias: false }), [m.batch]);

  const prediction = add(score, bias);
  return { loss: mse(prediction, rating), prediction };
});

export default defineRun({
  name: "own-model",
  model: towers,
  data: ratings(`${folder}/ml-100k/u.data`),
  optimizer: adamw({ learningRate: 3e-3 }),
  batch: 256,
  steps: 1000,
});
