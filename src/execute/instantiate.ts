/** Makes instances, which may use memory of another one. */
import type { Group } from "../collectives/index.ts";
import type { Device } from "../engine/index.ts";
import type { Program } from "../program/index.ts";
import { Instance } from "./instance.ts";

/** Buffers of another instance that a new one uses too. */
export interface Adopted {
  readonly instance: Instance;
  readonly names: readonly string[];
}

/**
 * Allocates all buffers and compiles all graphs. `group` has all ranks; a program with collectives
 * needs it. `folder` is on a disk; a program with buffers there needs it. Of `adopted`, buffers that
 * fit are used and keep their contents. After a failure nothing stays allocated.
 * @throws ENGINE_FAILED when the device cannot allocate or compile; OUT_OF_MEMORY, DISK_FULL
 */
export async function instantiate(
  device: Device,
  program: Program,
  group?: Group,
  folder?: string,
  adopted?: Adopted,
): Promise<Instance> {
  const instance = new Instance(device, folder);
  try {
    if (adopted !== undefined) instance.adopt(adopted.instance, adopted.names, { program, group });
    await instance.attach(program, group);
    return instance;
  } catch (error) {
    instance.close();
    throw error;
  }
}
