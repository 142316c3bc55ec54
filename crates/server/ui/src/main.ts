import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';

// A task of its own: reading the program and building the page would be one long one.
setTimeout(() => mount(App, { target: document.getElementById('app')! }));
