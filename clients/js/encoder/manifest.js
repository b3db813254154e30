// Made by tools/browser_encoder.py: length and SHA-256 of the two files beside this one.
export const KERNEL = { file: "kernel.wasm", bytes: 16561, sha256: "7cc2dbd892dcbd391b2ce180da3cf97d95b0e69dd718bbf070ccf42f14086a77" };
export const WEIGHTS = { file: "encoder.weights", bytes: 409540, sha256: "32863e4786d2566d4dde6f20fe94548ee2482f73b87a3b0f8c1d54ef41d8246f" };
