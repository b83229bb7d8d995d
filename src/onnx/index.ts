export {
  type EncodeOptions,
  encodeModel,
  INTERNAL_IR_VERSION,
  INTERNAL_OPSET,
} from "./encode.ts";
