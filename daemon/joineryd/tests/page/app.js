// What a browser wallet depends on, as small as it can be: calls to its own origin with the token in
// x-jm-authorization, a token that is kept per tab, a websocket at /jmws.

const show = (id, text) => { document.getElementById(id).textContent = text; };

async function api(method, path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { "x-jm-authorization": `Bearer ${token}` } : {};
  // A string as body makes the content type text/plain, as with the browser wallets in use.
  const answer = await fetch(`/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  const challenge = answer.headers.get("www-authenticate");
  return { status: answer.status, challenge, body: await answer.json() };
}

async function refresh() {
  const { body } = await api("GET", "/session");
  show("path", location.pathname);
  show("wallet", body.wallet_name);
  show("height", body.block_height ?? "unknown");
}

async function create(walletname, password) {
  const made = await api("POST", "/wallet/create", { walletname, password, wallettype: "sw-fb" });
  sessionStorage.setItem("token", made.body.token);
  await refresh();
  return made;
}

function listen() {
  const socket = new WebSocket(`wss://${location.host}/jmws`);
  socket.onopen = () => socket.send(sessionStorage.getItem("token"));
  socket.onmessage = (message) => {
    const { coinjoin_state: state, txid, txdetails } = JSON.parse(message.data);
    const line = document.createElement("li");
    line.textContent = txid ? `${txid} ${txdetails.confirmations}` : `state ${state}`;
    document.getElementById("events").append(line);
  };
  socket.onclose = (event) => show("events", `closed ${event.code}`);
  window.wallet.socket = socket;
}

window.wallet = { api, create, listen };
await refresh();
if (sessionStorage.getItem("token")) listen();
