import { defineConfig } from "vite";

import { mockServer } from "./mock/server";

export default defineConfig(({ mode }) => ({
  root: "app",
  base: "./",
  publicDir: false,
  plugins: mode === "mock" ? [mockServer()] : [],
  worker: { format: "es" },
  build: {
    outDir: "../../src/segany/server/static", // in the package: wheels and source distributions have it
    emptyOutDir: true,
    license: { fileName: "licenses.md" }, // what is bundled asks for it
    target: "es2022",
    assetsInlineLimit: 0, // data: URLs would need a weaker content security policy
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000,
  },
}));
