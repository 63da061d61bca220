"""An RTSP server with a moving picture at rtsp://127.0.0.1:PORT/line, run by Debian's own Python: rtsp_server.py PORT.

It needs gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and python3-gi. JPEG, so that no encoder is needed that
not everybody has. Prints a line when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
for element in ("videotestsrc", "jpegenc", "rtpjpegpay"):
    if Gst.ElementFactory.find(element) is None:
        sys.exit(f"GStreamer has no {element}")
server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/line", factory)
server.attach(None)
print("listening", flush=True)
GLib.MainLoop().run()
