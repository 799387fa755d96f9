"""Answers every TCP line and UDP packet on port 7000 with its name and whom it saw.

Runs in containers with nothing but the standard library.
"""

import os
import socketserver
import threading

NAME = os.environ["NAME"]


class Tcp(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self):
        question = self.rfile.readline(200).decode().strip()
        print(f"tcp {question} from {self.client_address[0]}", flush=True)
        self.wfile.write(f"{NAME} {self.client_address[0]}\n".encode())


class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        data, server = self.request
        print(f"udp {data.decode().strip()} from {self.client_address[0]}", flush=True)
        server.sendto(f"{NAME} {self.client_address[0]}\n".encode(), self.client_address)


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


tcp = Listener(("", 7000), Tcp)
udp = socketserver.ThreadingUDPServer(("", 7000), Udp)
threading.Thread(target=udp.serve_forever, daemon=True).start()
print("serving", flush=True)
tcp.serve_forever()
