/**
 * ONNX's multi-device annotations as messages (onnx.proto, since IR version 11): which devices a
 * model is for, and for each node how its tensors lie on them and in which pipeline stage it is.
 * They never change what a graph computes.
 */
import type { MessageTable } from "./wire.ts";

/** `DeviceConfigurationProto`: devices that the model can be run on, under a name. */
export interface RawDeviceConfiguration {
  name: string;
  numDevices: number | undefined;
  /** The names of the devices: as many as there are, or none. */
  device: string[];
}

/** `NodeDeviceConfigurationProto`: what one configuration says of a node. */
export interface RawNodeDevices {
  /** The name of a configuration of the model. */
  configurationId: string;
  shardingSpec: RawShardingSpec[];
  pipelineStage: number | undefined;
}

/** `ShardingSpecProto`: on which devices the parts of an input or output of the node lie. */
export interface RawShardingSpec {
  tensorName: string;
  /** By part, the last dim fastest: a device, or a key of `deviceGroups`. */
  device: number[];
  /** The devices that hold a part together (`index_to_device_group_map`). */
  deviceGroups: RawDeviceGroup[];
  shardedDim: RawShardedDim[];
}

export interface RawDeviceGroup {
  key: number | undefined;
  value: number[];
}

/** `ShardedDimProto`. Several entries: the dim is several dims in one, the first one slowest. */
export interface RawShardedDim {
  /** Negative: counted from the last dim. */
  axis: number | undefined;
  simpleSharding: RawSimpleSharding[];
}

/** `SimpleShardedDimProto`: a dim, by its size or its name, that is cut evenly. */
export interface RawSimpleSharding {
  dimValue: number | undefined;
  dimParam: string;
  numShards: number | undefined;
}

export const deviceConfigurationTable: MessageTable<RawDeviceConfiguration> = {
  name: { number: 1, kind: "string" },
  numDevices: { number: 2, kind: "optionalInt" },
  device: { number: 3, kind: "strings" },
};

const deviceGroup: MessageTable<RawDeviceGroup> = {
  key: { number: 1, kind: "optionalInt" },
  value: { number: 2, kind: "ints" },
};

const simpleSharding: MessageTable<RawSimpleSharding> = {
  dimValue: { number: 1, kind: "optionalInt" },
  dimParam: { number: 2, kind: "string" },
  numShards: { number: 3, kind: "optionalInt" },
};

const shardedDim: MessageTable<RawShardedDim> = {
  axis: { number: 1, kind: "optionalInt" },
  simpleSharding: { number: 2, kind: "messages", of: () => simpleSharding },
};

const shardingSpec: MessageTable<RawShardingSpec> = {
  tensorName: { number: 1, kind: "string" },
  device: { number: 2, kind: "ints" },
  deviceGroups: { number: 3, kind: "messages", of: () => deviceGroup },
  shardedDim: { number: 4, kind: "messages", of: () => shardedDim },
};

export const nodeDevicesTable: MessageTable<RawNodeDevices> = {
  configurationId: { number: 1, kind: "string" },
  shardingSpec: { number: 2, kind: "messages", of: () => shardingSpec },
  pipelineStage: { number: 3, kind: "optionalInt" },
};
