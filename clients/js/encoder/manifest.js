// Made by tools/browser_encoder.py: length and SHA-256 of the two files beside this one.
export const KERNEL = { file: "kernel.wasm", bytes: 17129, sha256: "b0a41f92f357848287a453897b8a24355296c1f1fdf132cd477f2123a2470fec" };
export const WEIGHTS = { file: "encoder.weights", bytes: 409540, sha256: "32863e4786d2566d4dde6f20fe94548ee2482f73b87a3b0f8c1d54ef41d8246f" };
