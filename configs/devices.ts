/** Where a model can be computed: execution providers of onnxruntime; `auto` is the CPU. */
export const DEVICES = ['auto', 'cpu', 'webgpu', 'cuda', 'coreml', 'dml'] as const
export type Device = (typeof DEVICES)[number]
