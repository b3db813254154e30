// Made by tools/browser_encoder.py: length and SHA-256 of the two files beside this one.
export const KERNEL = { file: "kernel.wasm", bytes: 17129, sha256: "5c2e8bbeb5cb7c0944d05140072fa2b566d01955f954c371ccea22669077622b" };
export const WEIGHTS = { file: "encoder.weights", bytes: 409540, sha256: "32863e4786d2566d4dde6f20fe94548ee2482f73b87a3b0f8c1d54ef41d8246f" };
