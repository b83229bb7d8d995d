/**
 * Memory on Windows: file mappings backed by the paging file, which end with the last process that
 * holds them.
 */
import fs from "node:fs";
import { LockstepError } from "../errors.ts";
import { type Address, loadLibrary } from "./ffi.ts";
import type { Mapping, NamedMapping, OpenedMapping, Platform } from "./platform.ts";

const PAGE_READONLY = 2;
const PAGE_READWRITE = 4;
const FILE_MAP_WRITE = 2;
const FILE_MAP_READ = 4;
const GENERIC_READ = 0x80000000;
const FILE_SHARE_READ = 1;
const OPEN_EXISTING = 3;
const ERROR_ALREADY_EXISTS = 183;
const INVALID_HANDLE = 2n ** 64n - 1n;

type Handle = bigint | null;

export function windowsPlatform(): Platform {
  const kernel = loadLibrary("kernel32.dll");
  const createFile = kernel.func<
    (
      path: string,
      access: number,
      share: number,
      security: null,
      how: number,
      flags: number,
      template: null,
    ) => Handle
  >(
    "void *__stdcall CreateFileW(str16 path, uint32_t access, uint32_t share, void *security, uint32_t how, uint32_t flags, void *template)",
  );
  const createFileMapping = kernel.func<
    (
      file: Handle,
      security: null,
      protection: number,
      high: number,
      low: number,
      name: string | null,
    ) => Handle
  >(
    "void *__stdcall CreateFileMappingW(void *file, void *security, uint32_t protection, uint32_t high, uint32_t low, str16 name)",
  );
  const openFileMapping = kernel.func<(access: number, inherit: number, name: string) => Handle>(
    "void *__stdcall OpenFileMappingW(uint32_t access, int inherit, str16 name)",
  );
  const mapView = kernel.func<
    (
      mapping: Handle,
      access: number,
      high: number,
      low: number,
      byteLength: number,
    ) => Address | null
  >(
    "void *__stdcall MapViewOfFile(void *mapping, uint32_t access, uint32_t high, uint32_t low, size_t length)",
  );
  const unmapView = kernel.func<(address: Address) => number>(
    "int __stdcall UnmapViewOfFile(void *address)",
  );
  const query = kernel.func<(address: Address, information: Uint8Array, length: number) => number>(
    "size_t __stdcall VirtualQuery(void *address, _Out_ uint8_t *information, size_t length)",
  );
  const closeHandle = kernel.func<(handle: Handle) => number>(
    "int __stdcall CloseHandle(void *handle)",
  );
  const lastError = kernel.func<() => number>("uint32_t __stdcall GetLastError()");

  const view = (handle: Handle, access: number, byteLength: number): Address => {
    const address = handle === null ? null : mapView(handle, access, 0, 0, byteLength);
    const error = address === null ? lastError() : 0;
    if (handle !== null) closeHandle(handle); // the view keeps the memory
    if (address !== null) return address;
    throw new LockstepError(
      "OUT_OF_MEMORY",
      `${(byteLength / 2 ** 20).toFixed(1)} MiB of memory could not be allocated (Windows error ${error}).`,
      {
        hint: "Use a smaller model or batch, or a larger paging file.",
        fields: { byteLength, error },
      },
    );
  };
  const allocate = (byteLength: number, name: string | null): Mapping => {
    const high = Math.floor(byteLength / 2 ** 32);
    const handle = createFileMapping(
      INVALID_HANDLE,
      null,
      PAGE_READWRITE,
      high,
      byteLength >>> 0,
      name,
    );
    if (name !== null && handle !== null && lastError() === ERROR_ALREADY_EXISTS) {
      closeHandle(handle);
      throw new LockstepError("MEMORY_NAME", `Shared memory "${name}" exists already.`, {
        hint: "Each piece of shared memory needs a name of its own.",
        fields: { name },
      });
    }
    return { address: view(handle, FILE_MAP_WRITE, byteLength), byteLength };
  };

  return {
    map: (byteLength) => allocate(byteLength, null),

    create(name, byteLength, _, folder): NamedMapping {
      if (folder !== undefined) throw notOnDisk();
      return {
        ...allocate(byteLength, `Local\\lockstep-${name}`),
        unlink: () => undefined, // the name goes with the last view
      };
    },

    open(name): OpenedMapping {
      const handle = openFileMapping(FILE_MAP_WRITE, 0, `Local\\lockstep-${name}`);
      if (handle === null) {
        throw new LockstepError("MEMORY_NAME", `There is no shared memory "${name}".`, {
          hint: "The process that created it has ended, or runs on another machine.",
          fields: { name },
        });
      }
      const address = view(handle, FILE_MAP_WRITE, 0);
      const information = new Uint8Array(48); // MEMORY_BASIC_INFORMATION has RegionSize at byte 24
      query(address, information, information.length);
      return {
        address,
        byteLength: Number(new DataView(information.buffer).getBigUint64(24, true)),
      };
    },

    mapFile(path): Mapping {
      const byteLength = fs.statSync(path).size;
      const file = createFile(path, GENERIC_READ, FILE_SHARE_READ, null, OPEN_EXISTING, 0, null);
      if (file === null || file === INVALID_HANDLE) {
        throw new LockstepError(
          "IO_FAILED",
          `${path} cannot be opened (Windows error ${lastError()}).`,
        );
      }
      const handle = createFileMapping(file, null, PAGE_READONLY, 0, 0, null);
      closeHandle(file);
      return { address: view(handle, FILE_MAP_READ, 0), byteLength };
    },

    retire: () => false,

    reserve: () => true, // memory is committed when it is allocated

    unmap({ address }): void {
      unmapView(address);
    },

    discard: () => undefined,
    letGo: () => undefined,

    preferLargePages: () => undefined, // large pages need a privilege on Windows
  };
}

function notOnDisk(): LockstepError {
  return new LockstepError("INVALID_OPTION", "On Windows, no part of a run can be kept on disk.", {
    hint: "Train without offload, or in WSL.",
  });
}
