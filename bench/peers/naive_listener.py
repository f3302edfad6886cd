"""A listener as one is written in an afternoon: the database as it comes, one session and one commit a message.

naive_listener.py DATABASE_URL PORT COUNT: prints "ready", and after COUNT messages what they took as JSON.
"""

import json
import sys
import time
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from infoscreen_server.models import Base, Client, ClientLog
from infoscreen_shared.messages import LogLevel

UUID = "1b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a12"
url, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = create_engine(url)
Base.metadata.create_all(engine)
seen = 0
began = cpu = 0.0


def on_message(client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
    global seen, began, cpu  # noqa: PLW0603
    if not seen:
        began, cpu = time.monotonic(), time.process_time()
    body = json.loads(message.payload)
    now = datetime.now(UTC)
    with Session(engine) as session:
        row = ClientLog(client_uuid=UUID, timestamp=now, received_at=now, level=LogLevel.INFO)
        row.message, row.context, row.code = body["message"], json.dumps(body["context"]), None
        session.add(row)
        session.commit()
    seen += 1
    if seen == count:
        print(json.dumps({"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}), flush=True)
        client.disconnect()


now = datetime.now(UTC)
with Session(engine) as session:
    if session.get(Client, UUID) is None:
        session.add(Client(uuid=UUID, registered_at=now, last_alive=now, online=True))
        session.commit()
listener = mqtt.Client(CallbackAPIVersion.VERSION2)
listener.on_message = on_message
listener.connect("127.0.0.1", port)
listener.on_subscribe = lambda *_: print("ready", flush=True)
listener.subscribe("bench/naive", qos=1)
listener.loop_start()
while seen < count:
    time.sleep(0.05) if seen else time.sleep(0.001)
listener.loop_stop()
