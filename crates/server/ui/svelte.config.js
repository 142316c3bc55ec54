import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

export default {
  preprocess: vitePreprocess(),
  compilerOptions: {
    runes: true,
    // Elements are made with createElement, never with innerHTML: the page runs under
    // `require-trusted-types-for 'script'`.
    fragments: 'tree',
  },
};
