/**
 * How devices are to share a model, as a file says it in ONNX's multi-device annotations: plain
 * data, in the names of the model's graph.
 */

export interface ModelDevices {
  /** The file, for messages. */
  readonly file: string;
  readonly configurations: readonly DeviceConfiguration[];
}

/** One of the ways in which a file says that devices share the model. */
export interface DeviceConfiguration {
  readonly name: string;
  readonly devices: number;
  /** The number of pipeline stages; 0 if the file says nothing of them. */
  readonly stages: number;
  /** The stage, counted from 0, of the nodes that make these values. */
  readonly stageOf: Readonly<Record<string, number>>;
  readonly parameters: Readonly<Record<string, ParameterCut>>;
}

/** How devices hold a parameter. */
export interface ParameterCut {
  /** 1: each device holds all of it. */
  readonly parts: number;
  readonly dim: number;
  /** The sizes of consecutive sections of the dim, each cut evenly. Default: one. */
  readonly sections?: readonly number[];
}
