"""Signs webhooks with the providers' own Python packages.

Standard input: one JSON object a line, {"case", "number", "now", "secret", "url", "settings"}.
Standard output: the request of each line, as {"by", "method", "query", "headers", "body" (hex),
"events": [ID], "tamper": {"part", "find", "replace"}}.

* "number" makes IDs unique, "now" is in seconds since 1970, "url" is the public URL of the source;
* an event's ID is what it must be identified by; a trailing "*" is any text, for providers without
  event IDs;
* "tamper": a text in the signed part of the request, and what a forger would put there instead. "part"
  is body, query or a header's name.

No SDK signs for PayPal, AWS SNS or Checkout.com: those three are signed here, step by step as the
providers' documentation says, with the packages "cryptography" and the standard library.
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
import zlib
from importlib.metadata import version
from urllib.parse import urlencode

import Adyen.util
import braintree
import stripe
import svix.webhooks
import standardwebhooks.webhooks
from coinbase_commerce.webhook import WebhookSignature as CoinbaseSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from google.auth import crypt, jwt
from keys import KEY_ID
from mollie.utils.webhooks.signature_validator import SignatureValidator as MollieSignature
from paddle_billing.Notifications.PaddleSignature import PaddleSignature
from twilio.request_validator import HMAC_SHA256, RequestValidator

JSON_TYPE = ["content-type", "application/json"]
FORM_TYPE = ["content-type", "application/x-www-form-urlencoded"]


def compact(value):
    """JSON as the providers send it: compact, not escaped beyond what JSON demands."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def instant(now):
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc)


def iso(now):
    return instant(now).strftime("%Y-%m-%dT%H:%M:%SZ")


def request(by, headers, body, events, tamper, method="POST", query=None):
    """One answer line."""
    if isinstance(body, str):
        body = body.encode()
    return {
        "by": by,
        "method": method,
        "query": query,
        "headers": headers,
        "body": body.hex(),
        "events": events,
        "tamper": dict(zip(("part", "find", "replace"), tamper)),
    }


def sdk(package):
    return f"{package} {version(package)}"


# Stripe


def stripe_snapshot(ask):
    event_id = f"evt_1Sdk{ask['number']}"
    intent = {
        "id": f"pi_3Sdk{ask['number']}",
        "object": "payment_intent",
        "amount": 1250,
        "amount_received": 1250,
        "currency": "eur",
        "status": "succeeded",
        "description": "Café, 2 × ☕",
    }
    body = json.dumps(
        {
            "id": event_id,
            "object": "event",
            "api_version": "2026-09-30.preview",
            "created": ask["now"],
            "data": {"object": intent},
            "livemode": False,
            "type": "payment_intent.succeeded",
        },
        indent=2,
        ensure_ascii=False,
    )
    return stripe_signed(ask, body, event_id, ("body", '"amount": 1250', '"amount": 9250'))


def stripe_thin(ask):
    event_id = f"evt_test_65Sdk{ask['number']}"
    body = compact(
        {
            "id": event_id,
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "livemode": False,
            "created": iso(ask["now"]),
            "related_object": {
                "id": "mtr_123",
                "type": "billing.meter",
                "url": "/v1/billing/meters/mtr_123",
            },
        }
    )
    return stripe_signed(ask, body, event_id, ("body", "meters/mtr_123", "meters/mtr_124"))


def stripe_signed(ask, body, event_id, tamper):
    sign = stripe.WebhookSignature.generate_signature_header
    signature = sign(body, ask["secret"], timestamp=ask["now"])
    headers = [["content-type", "application/json; charset=utf-8"], ["Stripe-Signature", signature]]
    return request(sdk("stripe"), headers, body, [event_id], tamper)


# Standard Webhooks and Svix


def standard_webhooks(ask):
    signer = standardwebhooks.webhooks.Webhook(ask["secret"])
    return standard_signed(ask, signer, "webhook", sdk("standardwebhooks"))


def svix_webhooks(ask):
    return standard_signed(ask, svix.webhooks.Webhook(ask["secret"]), "svix", sdk("svix"))


def standard_signed(ask, signer, prefix, by):
    event_id = f"msg_Sdk{ask['number']}"
    data = {"id": f"in_{ask['number']}", "amount": 1250}
    body = compact({"type": "invoice.paid", "timestamp": iso(ask["now"]), "data": data})
    # The package drops the time zone of what it is given.
    signature = signer.sign(event_id, instant(ask["now"]), body)
    headers = [
        JSON_TYPE,
        [f"{prefix}-id", event_id],
        [f"{prefix}-timestamp", str(ask["now"])],
        [f"{prefix}-signature", signature],
    ]
    tamper = ("body", '"amount":1250', '"amount":9250')
    return request(by, headers, body, [event_id], tamper)


# Twilio


def twilio_parameters(ask, status="delivered"):
    sid = f"SM{ask['number']:032d}"
    return sid, {
        "MessageSid": sid,
        "SmsSid": sid,
        "AccountSid": "AC00000000000000000000000000000000",
        "MessageStatus": status,
        "From": "+14158675309",
        "To": "+18005551212",
        "Body": "Grüße & more = 1/2 + ½",
        "ApiVersion": "2010-04-01",
    }


def twilio_form(ask):
    sid, parameters = twilio_parameters(ask)
    signature = RequestValidator(ask["secret"]).compute_signature(ask["url"], parameters)
    headers = [FORM_TYPE, ["X-Twilio-Signature", signature]]
    tamper = ("body", "MessageStatus=delivered", "MessageStatus=failed")
    return request(sdk("twilio"), headers, urlencode(parameters), [f"{sid}*"], tamper)


def twilio_shared_key(ask):
    sid, parameters = twilio_parameters(ask, "sent")
    validator = RequestValidator(ask["secret"])
    query = "foo=1&bar=%2F2"
    url = f"{ask['url']}?{query}"
    headers = [
        FORM_TYPE,
        ["X-Twilio-Signature", validator.compute_signature(url, parameters, HMAC_SHA256)],
        ["X-Twilio-Webhooks-Signature-Settings", "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"],
    ]
    body = urlencode(parameters)
    tamper = ("body", "MessageStatus=sent", "MessageStatus=failed")
    return request(sdk("twilio"), headers, body, [f"{sid}*"], tamper, query=query)


def twilio_json(ask):
    sid, parameters = twilio_parameters(ask)
    body = compact(parameters)
    validator = RequestValidator(ask["secret"])
    query = f"bodySHA256={validator.compute_hash(body)}"
    signature = validator.compute_signature(f"{ask['url']}?{query}", {})
    headers = [JSON_TYPE, ["X-Twilio-Signature", signature]]
    tamper = ("body", '"MessageStatus":"delivered"', '"MessageStatus":"undelivered"')
    return request(sdk("twilio"), headers, body, ["*"], tamper, query=query)


def twilio_get(ask):
    sid, parameters = twilio_parameters(ask)
    query = urlencode(parameters)
    signature = RequestValidator(ask["secret"]).compute_signature(f"{ask['url']}?{query}", {})
    headers = [["X-Twilio-Signature", signature]]
    tamper = ("query", "MessageStatus=delivered", "MessageStatus=failed")
    events = [f"{sid}*"]
    return request(sdk("twilio"), headers, "", events, tamper, method="GET", query=query)


# Adyen


def adyen_items(ask):
    items, events = [], []
    for code, success in (("AUTHORISATION", "true"), ("CAPTURE", "false")):
        reference = f"{code[:3]}{ask['number']:013d}"
        item = {
            "amount": {"currency": "EUR", "value": 1130},
            "eventCode": code,
            "eventDate": iso(ask["now"]),
            "merchantAccountCode": "ShopECOM",
            "merchantReference": f"Order:{ask['number']}/\\1",
            "paymentMethod": "visa",
            "pspReference": reference,
            "reason": "",
            "success": success,
        }
        if code == "CAPTURE":
            item["originalReference"] = f"AUT{ask['number']:013d}"
        signature = Adyen.util.generate_notification_sig(item, ask["secret"]).decode()
        item["additionalData"] = {"hmacSignature": signature, "expiryDate": "12/2030"}
        items.append({"NotificationRequestItem": item})
        events.append(f"{reference}:{code}:{success}")
    body = compact({"live": "false", "notificationItems": items})
    # In the second item: an SDK that looks at the first one alone would not see it.
    tamper = ("body", '"success":"false"', '"success":"true"')
    return request(sdk("Adyen"), [JSON_TYPE], body, events, tamper)


def adyen_platform(ask):
    account = f"AH{ask['number']:025d}"
    body = json.dumps(
        {
            "data": {
                "balancePlatform": "ShopPlatform",
                "accountHolder": {"id": account, "status": "active", "description": "Zoë"},
            },
            "environment": "test",
            "timestamp": iso(ask["now"]),
            "type": "balancePlatform.accountHolder.created",
        },
        indent=2,
        ensure_ascii=False,
    )
    signature = Adyen.util.generate_payload_sig(body.encode(), ask["secret"]).decode()
    headers = [JSON_TYPE, ["Protocol", "HmacSHA256"], ["HmacSignature", signature]]
    tamper = ("body", '"status": "active"', '"status": "closed"')
    return request(sdk("Adyen"), headers, body, ["*"], tamper)


# Others with a MAC


def paddle(ask):
    event_id = f"evt_01sdk{ask['number']:021d}"
    body = compact(
        {
            "event_id": event_id,
            "event_type": "transaction.completed",
            "occurred_at": iso(ask["now"]),
            "notification_id": f"ntf_01sdk{ask['number']:021d}",
            "data": {
                "id": f"txn_01sdk{ask['number']:021d}",
                "status": "completed",
                "currency_code": "EUR",
                "details": {"totals": {"grand_total": "1250", "currency_code": "EUR"}},
            },
        }
    )
    mac = PaddleSignature.calculate_hmac(ask["secret"], f"{ask['now']}:{body}".encode())
    headers = [JSON_TYPE, ["Paddle-Signature", f"ts={ask['now']};h1={mac.hexdigest()}"]]
    tamper = ("body", '"grand_total":"1250"', '"grand_total":"9250"')
    return request(sdk("paddle-python-sdk"), headers, body, [event_id], tamper)


def braintree_sample(ask):
    gateway = braintree.BraintreeGateway(
        braintree.Configuration(
            braintree.Environment.Sandbox,
            merchant_id="merchant",
            public_key=ask["settings"]["public_key"],
            private_key=ask["secret"],
        )
    )
    kind = braintree.WebhookNotification.Kind.SubscriptionChargedSuccessfully
    sample = gateway.webhook_testing.sample_notification(kind, f"sub_{ask['number']}")
    payload = sample["bt_payload"].decode()
    body = urlencode({"bt_signature": sample["bt_signature"], "bt_payload": payload})
    # The payload is base64: another subscription in it is other base64.
    xml = base64.b64decode(payload)
    other = xml.replace(f"sub_{ask['number']}".encode(), b"sub_0")
    assert other != xml
    tamper = ("body", urlencode({"bt_payload": payload}))
    tamper += (urlencode({"bt_payload": base64.encodebytes(other).decode()}),)
    return request(sdk("braintree"), [FORM_TYPE], body, ["*"], tamper)


def mollie(ask):
    event_id = f"event_Sdk{ask['number']}"
    body = compact(
        {
            "resource": "event",
            "id": event_id,
            "type": "payment-link.paid",
            "entityId": "pl_qng5gbbv8NAZ5gpM5ZYgx",
            "createdAt": iso(ask["now"]),
        }
    )
    signature = MollieSignature.create_signature(body, ask["secret"])
    headers = [JSON_TYPE, ["X-Mollie-Signature", f"sha256={signature.removeprefix('sha256=')}"]]
    tamper = ("body", "pl_qng5gbbv8NAZ5gpM5ZYgx", "pl_qng5gbbv8NAZ5gpM5ZYgy")
    return request(sdk("mollie-api-py"), headers, body, [event_id], tamper)


def coinbase_commerce(ask):
    event_id = f"24934862-d980-46cb-9402-{ask['number']:012d}"
    event = {
        "id": event_id,
        "resource": "event",
        "type": "charge:confirmed",
        "api_version": "2018-03-22",
        "created_at": iso(ask["now"]),
        "data": {
            "code": "66BEOV2A",
            "pricing": {"local": {"amount": "12.50", "currency": "EUR"}},
        },
    }
    delivery = {"id": 1, "scheduled_for": iso(ask["now"]), "attempt_number": 1, "event": event}
    body = compact(delivery)
    # Private in the package, and the only place where it computes a signature.
    signature = CoinbaseSignature._compute_signature(body, ask["secret"])
    headers = [JSON_TYPE, ["X-CC-Webhook-Signature", signature]]
    tamper = ("body", '"amount":"12.50"', '"amount":"92.50"')
    return request(sdk("coinbase-commerce"), headers, body, [event_id], tamper)


def checkout_com(ask):
    event_id = f"evt_sdk{ask['number']:023d}"
    body = compact(
        {
            "id": event_id,
            "type": "payment_captured",
            "version": "1.0.0",
            "created_on": iso(ask["now"]),
            "data": {
                "id": f"pay_sdk{ask['number']:023d}",
                "amount": 1250,
                "currency": "EUR",
                "reference": "Order © 7",
            },
        }
    )
    mac = hmac.new(ask["secret"].encode(), body.encode(), hashlib.sha256).hexdigest()
    headers = [JSON_TYPE, ["Cko-Signature", mac]]
    tamper = ("body", '"amount":1250', '"amount":9250')
    by = "the documentation of Checkout.com; its SDKs sign nothing"
    return request(by, headers, body, [event_id], tamper)


# Signed with RSA


def google_pubsub(ask):
    message_id = f"{ask['number']:012d}"
    settings = ask["settings"]
    claims = {
        "iss": "https://accounts.google.com",
        "aud": settings["audience"],
        "azp": "113774264463038321964",
        "sub": "113774264463038321964",
        "email": settings["service_accounts"][0],
        "email_verified": True,
        "iat": ask["now"],
        "exp": ask["now"] + 3600,
    }
    signer = crypt.RSASigner.from_string(ask["secret"], key_id=KEY_ID)
    token = jwt.encode(signer, claims).decode()
    message = {
        "attributes": {"kind": "payment"},
        "data": base64.b64encode(b'{"id":"evt_1"}').decode(),
        "messageId": message_id,
        "message_id": message_id,
        "publishTime": iso(ask["now"]),
        "publish_time": iso(ask["now"]),
    }
    body = compact({"message": message, "subscription": "projects/shop/subscriptions/payments"})
    # The token does not cover the body; what it covers are its claims.
    part = token.split(".")[1]
    other = base64.urlsafe_b64encode(compact({**claims, "exp": ask["now"] + 3601}).encode())
    headers = [JSON_TYPE, ["Authorization", f"Bearer {token}"]]
    tamper = ("Authorization", f".{part}.", f".{other.decode().rstrip('=')}.")
    return request(sdk("google-auth"), headers, body, [message_id], tamper)


def rsa_signature(pem, algorithm, text):
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    signature = key.sign(text.encode(), padding.PKCS1v15(), algorithm)
    return base64.b64encode(signature).decode()


def paypal(ask):
    event_id = f"WH-SDK{ask['number']:014d}-67976317FL4543714"
    body = compact(
        {
            "id": event_id,
            "event_version": "1.0",
            "create_time": iso(ask["now"]),
            "resource_type": "capture",
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "resource": {
                "id": f"CAP{ask['number']:014d}",
                "status": "COMPLETED",
                "amount": {"currency_code": "EUR", "value": "12.50"},
            },
        }
    )
    transmission = f"69cd13f0-d67a-11e5-baa3-{ask['number']:012d}"
    checksum = zlib.crc32(body.encode())
    signed = f"{transmission}|{iso(ask['now'])}|{ask['settings']['webhook_id']}|{checksum}"
    headers = [
        JSON_TYPE,
        ["PAYPAL-TRANSMISSION-ID", transmission],
        ["PAYPAL-TRANSMISSION-TIME", iso(ask["now"])],
        ["PAYPAL-TRANSMISSION-SIG", rsa_signature(ask["secret"], hashes.SHA256(), signed)],
        ["PAYPAL-CERT-URL", "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594"],
        ["PAYPAL-AUTH-ALGO", "SHA256withRSA"],
        ["PAYPAL-AUTH-VERSION", "v2"],
    ]
    tamper = ("body", '"value":"12.50"', '"value":"92.50"')
    by = "the documentation of PayPal; its SDKs sign nothing"
    return request(by, headers, body, [event_id], tamper)


def aws_sns(ask, signature_version="2", algorithm=hashes.SHA256()):
    message_id = f"22b80b92-fdea-4c2c-8f9d-{ask['number']:012d}"
    message = {
        "Type": "Notification",
        "MessageId": message_id,
        "TopicArn": ask["settings"]["topics"][0],
        "Subject": "Zahlung é",
        "Message": '{"id":"evt_1","amount":1250,"text":"a\\nb"}',
        "Timestamp": iso(ask["now"]).replace("Z", ".000Z"),
    }
    covered = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    signed = "".join(f"{name}\n{message[name]}\n" for name in covered)
    name = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
    message |= {
        "SignatureVersion": signature_version,
        "Signature": rsa_signature(ask["secret"], algorithm, signed),
        "SigningCertURL": f"https://sns.us-east-1.amazonaws.com/{name}",
    }
    headers = [
        ["content-type", "text/plain; charset=UTF-8"],
        ["x-amz-sns-message-type", "Notification"],
        ["x-amz-sns-message-id", message_id],
        ["x-amz-sns-topic-arn", message["TopicArn"]],
    ]
    tamper = ("body", '\\"amount\\":1250', '\\"amount\\":9250')
    by = "the documentation of AWS SNS; its SDKs sign nothing"
    return request(by, headers, json.dumps(message), [message_id], tamper)


def aws_sns_sha1(ask):
    return aws_sns(ask, "1", hashes.SHA1())


CASES = {
    "stripe": stripe_snapshot,
    "stripe-thin": stripe_thin,
    "standard-webhooks": standard_webhooks,
    "svix": svix_webhooks,
    "twilio": twilio_form,
    "twilio-json": twilio_json,
    "twilio-get": twilio_get,
    "twilio-shared-key": twilio_shared_key,
    "adyen": adyen_items,
    "adyen-platform": adyen_platform,
    "paddle": paddle,
    "braintree": braintree_sample,
    "mollie": mollie,
    "coinbase-commerce": coinbase_commerce,
    "checkout-com": checkout_com,
    "google-pubsub": google_pubsub,
    "paypal": paypal,
    "aws-sns": aws_sns,
    "aws-sns-sha1": aws_sns_sha1,
}


def main():
    for line in sys.stdin:
        ask = json.loads(line)
        print(json.dumps(CASES[ask["case"]](ask)))


main()
