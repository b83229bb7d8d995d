/** Every kind of source, and the code that opens it. A source from the wire is checked when its files are. */
import { LockstepError } from "../errors.ts";
import type { Dataset, OpenRequest } from "./source.ts";
import { openText, type TextSource } from "./text.ts";

export type DataSource = TextSource;

/**
 * Opens data for a model. Throws FILE_NOT_FOUND, FILE_CORRUPT, DATA_EMPTY, DATA_FORMAT (a field that the model needs
 * and the data lacks), DATA_TOO_SMALL (less than one batch) or INVALID_OPTION.
 */
export async function openData(source: DataSource, request: OpenRequest): Promise<Dataset> {
  switch (source.kind) {
    case "text":
      return openText(source, request);
    default:
      throw new LockstepError(
        "INVALID_OPTION",
        `There is no source of data of the kind "${(source as { kind?: unknown }).kind}".`,
        { hint: 'Make one with text(), jsonl(), csv(), arrays() and the like from "lockstep".' },
      );
  }
}
