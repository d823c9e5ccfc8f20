import "./style.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { setLanguage } from "./lib/words.svelte";

await setLanguage();
mount(App, { target: document.getElementById("page")! });
