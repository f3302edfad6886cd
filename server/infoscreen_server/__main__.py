from infoscreen_server.cli import entry

entry()
