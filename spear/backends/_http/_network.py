"""Sockets for httpcore2's connections: those that all of Spear shares."""

from spear._sockets import TcpStream as TcpStream
from spear._sockets import connect as connect
from spear._sockets import shared_ssl_context as shared_ssl_context
from spear._sockets import start_tls as start_tls
