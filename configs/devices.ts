/** Where a model can be computed: execution providers of onnxruntime; `auto` is the CPU. */
export const COMPUTING = ['cpu', 'webgpu', 'cuda', 'coreml', 'dml'] as const
export const DEVICES = ['auto', ...COMPUTING] as const
export type Device = (typeof DEVICES)[number]
