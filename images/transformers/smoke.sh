#!/bin/sh
# Start the image sealed as a worker is, with the built-in model, and ask it one question.
#
# usage: images/transformers/smoke.sh IMAGE
set -eu

image=${1:?usage: images/transformers/smoke.sh IMAGE}
model=$(cd "$(dirname "$0")/../windlass-mini/safetensors" && pwd)
name=windlass-smoke-$$

trap 'docker rm --force "$name" >/dev/null 2>&1' EXIT
docker run --detach --name "$name" \
    --network none --read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 128 \
    --memory 512m --memory-swap 512m --tmpfs /tmp:size=16m --tmpfs /run/worker:uid=64001,gid=64000,mode=0770 \
    --volume "$model:/model:ro" \
    "$image" --socket /run/worker/worker.sock --model /model --model-name mini --context-tokens 512 --threads 2 >/dev/null

# Asked from inside: the socket is in the container's own memory.
docker exec --interactive "$name" /opt/venv/bin/python - <<'PYTHON' || { docker logs "$name" && exit 1; }
import http.client, json, socket, time

class Worker(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/worker/worker.sock")

def ask(method, path, body=None):
    connection = Worker("worker")
    connection.request(method, path, json.dumps(body) if body else None)
    response = connection.getresponse()
    return response.status, json.loads(response.read())

deadline_s = time.monotonic() + 120
while True:
    try:
        if ask("GET", "/health")[0] == 200:
            break
    except OSError:
        pass
    assert time.monotonic() < deadline_s, "not ready after two minutes"
    time.sleep(0.1)
status, answer = ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 32})
assert status == 200, answer
print(answer["choices"][0]["message"]["content"])
PYTHON
