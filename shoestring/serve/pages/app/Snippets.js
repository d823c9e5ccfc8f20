import{$ as e,F as t,H as n,L as r,O as i,P as a,Q as o,V as s,W as c,Z as l,at as u,ct as d,g as f,nt as p,q as m,st as h,tt as g,u as _,ut as v}from"./words.svelte.js";import{t as y}from"./Code.js";function b(e,t,n){let r=n||`none`,i=`2+3=`,a=n?` \\\n  -H "Authorization: Bearer ${n}"`:``,o=`const reply = await fetch("${e}/v1/chat/completions", {
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
  -d '{"model": "${t}", "messages": [{"role": "user", "content": "${i}"}]}'`},{name:`openai-python`,text:s},{name:`anthropic-python`,text:c},{name:`JavaScript`,text:o}]}var x=r(`<button> </button>`),S=r(`<div class="tabs" role="group"></div> <!>`,1);function C(r,s){d(s,!0);let C=_(s,`key`,3,``),w=p(`curl`),T=u(()=>b(location.origin,s.model,C())),E=u(()=>c(T).find(({name:e})=>e===c(w)));var D=S(),O=l(D);i(O,21,()=>c(T),({name:e})=>e,(e,r)=>{let i=()=>c(r).name;var s=x(),l=o(s,!0);m(()=>{f(s,`aria-pressed`,i()===c(w)),a(l,i())}),n(`click`,s,()=>g(w,i(),!0)),t(e,s)}),v(O);var k=e(O,2);y(k,{get title(){return c(E).name},get text(){return c(E).text}}),t(r,D),h()}s([`click`]);export{C as t};