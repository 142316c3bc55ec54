import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [svelte()],
  base: '/',
  build: {
    target: 'es2022',
    // The polyfill would be one more script; every browser that runs the rest has modulepreload.
    modulePreload: { polyfill: false },
    // Data URLs in style sheets are not allowed by the content security policy.
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
});
