import type { OperatorDefinition } from "../../graph/index.ts";
import { gru } from "./gru.ts";
import { lstm } from "./lstm.ts";
import { rnn } from "./rnn.ts";

export { type CellFunction, cellFunctions } from "./activations.ts";

export const recurrent = {
  GRU: gru,
  LSTM: lstm,
  RNN: rnn,
} satisfies Record<string, OperatorDefinition>;
