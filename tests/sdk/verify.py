"""Verifies webhooks with the providers' own Python packages.

Standard input: one JSON object a line, {"case", "secret", "url", "method", "query", "headers",
"body" (hex)}. Standard output: {"by", "accepted", "reason"} for each line.
"""

import json
import sys
from importlib.metadata import version
from urllib.parse import parse_qs

import gocardless_pro.errors
import gocardless_pro.webhooks
import razorpay
from mercadopago.webhook import InvalidWebhookSignatureError, WebhookSignatureValidator
from square.utils.webhooks_helper import verify_signature as square_signature

TOLERANCE_S = 300


def square(ask, headers, body):
    accepted = square_signature(
        request_body=body,
        signature_header=headers["x-square-hmacsha256-signature"],
        signature_key=ask["secret"],
        notification_url=ask["url"],
    )
    return None if accepted else "not valid"


def razorpay_webhook(ask, headers, body):
    try:
        client = razorpay.Client(auth=("key", "not used"))
        signature = headers["x-razorpay-signature"]
        client.utility.verify_webhook_signature(body, signature, ask["secret"])
    except razorpay.errors.SignatureVerificationError as error:
        return str(error)


def gocardless(ask, headers, body):
    try:
        events = gocardless_pro.webhooks.parse(body, ask["secret"], headers["webhook-signature"])
    except gocardless_pro.errors.InvalidSignatureError as error:
        return repr(error)
    return None if events else "no events"


def mercadopago(ask, headers, body):
    query = parse_qs(ask["query"], strict_parsing=True)
    signature = headers["x-signature"]
    # The package takes ts for seconds: where it is in milliseconds, only the MAC can be compared.
    stamp = dict(part.split("=", 1) for part in signature.replace(" ", "").split(","))["ts"]
    tolerance = TOLERANCE_S if len(stamp) < 13 else None
    try:
        WebhookSignatureValidator.validate(
            signature,
            headers["x-request-id"],
            query["data.id"][0],
            ask["secret"],
            tolerance_seconds=tolerance,
        )
    except InvalidWebhookSignatureError as error:
        return str(error)


CASES = {
    "square": ("squareup", square),
    "razorpay": ("razorpay", razorpay_webhook),
    "gocardless": ("gocardless-pro", gocardless),
    "mercadopago": ("mercadopago", mercadopago),
}


def main():
    for line in sys.stdin:
        ask = json.loads(line)
        package, verify = CASES[ask["case"]]
        headers = {name.lower(): value for name, value in ask["headers"]}
        reason = verify(ask, headers, bytes.fromhex(ask["body"]).decode())
        by = f"{package} {version(package)}"
        print(json.dumps({"by": by, "accepted": reason is None, "reason": reason}))


main()
