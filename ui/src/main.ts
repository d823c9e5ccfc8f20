import "./style.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { readTheme, setTheme } from "./lib/theme";
import { setLanguage } from "./lib/words.svelte";

setTheme(readTheme());
await setLanguage();
mount(App, { target: document.getElementById("page")! });
