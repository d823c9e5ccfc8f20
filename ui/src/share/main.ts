import "../style.css";
import { mount } from "svelte";
import { setLanguage } from "../lib/words.svelte";
import Shared from "./Shared.svelte";

await setLanguage();
mount(Shared, { target: document.getElementById("page")! });
