import{B as e,D as t,I as n,K as r,N as i,P as a,Q as o,U as s,V as c,X as l,Z as u,ct as d,et as f,g as p,it as m,st as h,tt as g,u as _,ut as v}from"./words.svelte.js";import{n as y}from"./Part.js";function b(e,t,n){let r=n||`none`,i=`2+3=`,a=n?` \\\n  -H "Authorization: Bearer ${n}"`:``,o=`const reply = await fetch("${e}/v1/chat/completions", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${n?`\n    Authorization: "Bearer ${n}",`:``}
  },
  body: JSON.stringify({
    model: "${t}",
    messages: [{ role: "user", content: "${i}" }],
  }),
});
console.log((await reply.json()).choices[0].message.content);`,s=`from openai import OpenAI

client = OpenAI(base_url="${e}/v1", api_key="${r}")
reply = client.chat.completions.create(
    model="${t}",
    messages=[{"role": "user", "content": "${i}"}],
)
print(reply.choices[0].message.content)`,c=`from anthropic import Anthropic

client = Anthropic(base_url="${e}", api_key="${r}")
reply = client.messages.create(
    model="${t}",
    max_tokens=256,
    messages=[{"role": "user", "content": "${i}"}],
)
print("".join(block.text for block in reply.content if block.type == "text"))`;return[{name:`curl`,text:`curl ${e}/v1/chat/completions${a} \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${t}", "messages": [{"role": "user", "content": "${i}"}]}'`},{name:`openai-python`,text:s},{name:`anthropic-python`,text:c},{name:`JavaScript`,text:o}]}var x=n(`<button> </button>`),S=n(`<div class="tabs" role="group"></div> <!>`,1);function C(e,n){d(n,!0);let C=_(n,`key`,3,``),w=g(`curl`),T=m(()=>b(location.origin,n.model,C())),E=m(()=>s(T).find(({name:e})=>e===s(w)));var D=S(),O=l(D);t(O,21,()=>s(T),({name:e})=>e,(e,t)=>{let n=()=>s(t).name;var o=x(),l=u(o,!0);r(()=>{p(o,`aria-pressed`,n()===s(w)),i(l,n())}),c(`click`,o,()=>f(w,n(),!0)),a(e,o)}),v(O);var k=o(O,2);y(k,{get title(){return s(E).name},get text(){return s(E).text}}),a(e,D),h()}e([`click`]);export{C as t};