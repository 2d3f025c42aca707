"""Prints the keys and certificates of providers that sign with RSA, as one JSON object.

"key" and "foreign_key" are private keys; "paypal" and "aws_sns" certificates of the first one, and
"foreign_aws_sns" of the other, signed by the authority "root"; "jwks" is the public half of the first
one, in the form in which Google publishes keys. All but the last are PEM.
"""

import base64
import datetime
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_ID = "7d680d8c70d44e947133cbd499ebc1a61c3d5abc"
DAY = datetime.timedelta(days=1)


def certificate(subject, key, issuer=None, issuer_key=None):
    """A certificate that is valid for a day around now; without an issuer it is an authority."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(identifier, critical=False).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False
        )
    return builder.sign(issuer_key or key, hashes.SHA256())


def pem(item):
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.PEM).decode()
    return item.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def number(value):
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def keys():
    authority, key, foreign = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = certificate("Root of the SDK tests", authority)
    public = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID}
    jwk |= {"n": number(public.n), "e": number(public.e)}

    def leaf(subject, its_key=key):
        return pem(certificate(subject, its_key, root, authority))

    return {
        "key": pem(key),
        "foreign_key": pem(foreign),
        "root": pem(root),
        "paypal": leaf("messageverificationcerts.paypal.com"),
        "aws_sns": leaf("sns.amazonaws.com"),
        "foreign_aws_sns": leaf("sns.amazonaws.com", foreign),
        "jwks": {"keys": [jwk]},
    }


if __name__ == "__main__":
    print(json.dumps(keys()))
