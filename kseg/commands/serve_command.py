"""Serve a model over HTTP, by the Open Inference Protocol, version 2: what tritonclient speaks.

    kseg serve --model=runs/segnet_aspp
    kseg serve --model=runs/segnet_aspp --port=9000 --timeout=10 --log_requests
    kseg serve --model=runs/segnet_aspp --page=segnet_aspp_page

One machine, one model, one request at a time. docs/how-to/serve.md says how to ask, and when to use another server.
"""

import dataclasses

from absl import flags

from kseg.commands import command_line
from kseg.serving.limits import Limits

FLAGS = command_line.new_flags(__name__)
flags.DEFINE_string(
    "model",
    None,
    "Run folder, .keras file, folder of a study's seeds (their ensemble), SavedModel folder, ONNX or TFLite file.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "name",
    None,
    "Name of the model in addresses; empty: that of its folder or file.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address to listen at. Anything but loopback lets others use the model: there is no authentication.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("port", 8000, "Port to listen at; 0: a free one.", 0, 65535, flag_values=FLAGS)
flags.DEFINE_string(
    "page",
    None,
    "Folder of kseg export --format=web, to show at the address itself.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("log_requests", False, "Print a line for each request.", flag_values=FLAGS)
command_line.define_fields(Limits, FLAGS, __name__)


def run(args):
    """Serve the model."""
    command_line.require(args, "model")
    command_line.check_models(args.model)
    from kseg.serving.serve import serve

    limits = {field.name: args[field.name].value for field in dataclasses.fields(Limits)}
    serve(
        args.model,
        name=args.name or None,
        host=args.host,
        port=args.port,
        log_requests=args.log_requests,
        page=args.page or None,
        **limits,
    )


def main():
    """Run the command line."""
    command_line.start(run, FLAGS)
