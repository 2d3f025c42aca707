//! The APIs of the providers that events are completed from: paths, authorisation, bodies and errors as the
//! real ones have them, as far as a client can tell.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, Uri},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{Reply, Shared, header, next, respond};

/// The access token that Mercado Pago knows.
pub const MERCADO_PAGO_TOKEN: &str = "APP_USR-6401-112233-e2e-access-token";
/// The API key that Mollie knows.
pub const MOLLIE_KEY: &str = "test_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM";
/// The API key that Stripe knows.
pub const STRIPE_KEY: &str = "rk_test_51Pe2eRestrictedKeyOfTheTests";
/// The client ID that PayPal knows.
pub const PAYPAL_CLIENT_ID: &str = "AeA1QIZXiflr1_e2e";
/// Its secret.
pub const PAYPAL_CLIENT_SECRET: &str = "EC4i-e2e-secret";
/// The id under which PayPal's token endpoint is scripted and its calls are entered.
pub const PAYPAL_TOKEN: &str = "token";

/// How one API differs from the others.
struct Dialect {
    /// What is wrong with a request, as status, before the id is looked up.
    refuses: fn(&HeaderMap, token: Option<&str>) -> Option<u16>,
    /// What it says with a status other than 200.
    error: fn(u16) -> Value,
}

fn bearer(headers: &HeaderMap, token: &str) -> Option<u16> {
    let authorised = header(headers, "authorization") == Some(format!("Bearer {token}"));
    (!authorised).then_some(401)
}

static MERCADO_PAGO: Dialect = Dialect {
    refuses: |headers, _| bearer(headers, MERCADO_PAGO_TOKEN),
    error: |status| match status {
        401 => {
            json!({"message": "invalid access token", "error": "unauthorized", "status": 401, "cause": []})
        }
        404 => {
            let cause = json!([{"code": 2000, "description": "Payment not found", "data": null}]);
            json!({"message": "Payment not found", "error": "not_found", "status": 404, "cause": cause})
        }
        _ => {
            json!({"message": "internal_error", "error": "internal_error", "status": status, "cause": []})
        }
    },
};

static MOLLIE: Dialect = Dialect {
    refuses: |headers, _| bearer(headers, MOLLIE_KEY),
    error: |status| {
        let (title, detail) = match status {
            401 => ("Unauthorized Request", "Missing authentication, or failed to authenticate"),
            404 => ("Not Found", "No payment exists with token"),
            _ => ("Service Unavailable", "The service is temporarily unavailable"),
        };
        json!({"status": status, "title": title, "detail": detail, "_links": {}})
    },
};

static STRIPE: Dialect = Dialect {
    // The v2 namespace has no default version.
    refuses: |headers, _| {
        bearer(headers, STRIPE_KEY)
            .or_else(|| header(headers, "stripe-version").is_none().then_some(400))
    },
    error: |status| {
        let kind = if status < 500 { "invalid_request_error" } else { "api_error" };
        json!({"error": {"type": kind, "message": format!("refused with {status}")}})
    },
};

static PAYPAL: Dialect = Dialect {
    refuses: |headers, token| token.map_or(Some(401), |token| bearer(headers, token)),
    error: |status| {
        let (name, message) = match status {
            401 => ("AUTHENTICATION_FAILURE", "Authentication failed due to invalid credentials."),
            404 => ("INVALID_RESOURCE_ID", "Resource id is invalid."),
            _ => ("INTERNAL_SERVER_ERROR", "An internal server error has occurred."),
        };
        json!({"name": name, "message": message, "debug_id": "e2e"})
    },
};

/// The paths of all of them.
pub(super) fn routes() -> Router<Shared> {
    macro_rules! ask {
        ($dialect:expr) => {
            get(
                |script: State<Shared>, uri: Uri, id: Path<String>, headers: HeaderMap| async move {
                    ask(&$dialect, &script, &uri, &id, &headers).await
                },
            )
        };
    }
    Router::new()
        .route("/v1/payments/{id}", ask!(MERCADO_PAGO))
        .route("/v2/payments/{id}", ask!(MOLLIE))
        .route("/v2/core/events/{id}", ask!(STRIPE))
        .route("/v1/notifications/webhooks-events/{id}", ask!(PAYPAL))
        .route("/v1/oauth2/token", post(paypal_token))
}

async fn ask(
    dialect: &Dialect,
    script: &Shared,
    uri: &Uri,
    id: &str,
    headers: &HeaderMap,
) -> Response {
    let scripted = next(script, uri, id, headers);
    let (refused, object) = {
        let script = script.lock().unwrap();
        ((dialect.refuses)(headers, script.token.as_deref()), script.objects.get(id).cloned())
    };
    let reply = match (refused, scripted) {
        (Some(status), _) => Reply::status(status),
        (None, Some(reply)) => reply,
        (None, None) => Reply::status(if object.is_some() { 200 } else { 404 }),
    };
    let body = match (reply.status, object) {
        (200, Some(object)) => object,
        (200, None) => panic!("{id} is scripted to be there, and never was put"),
        (status, _) => (dialect.error)(status),
    };
    respond(reply, body.to_string()).await
}

/// A new token for who knows the client's secret; the one before it is worthless then.
async fn paypal_token(
    State(script): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(reply) = next(&script, &uri, PAYPAL_TOKEN, &headers) {
        return respond(reply, "{}".to_owned()).await;
    }
    let form = header(&headers, "content-type").as_deref()
        == Some("application/x-www-form-urlencoded")
        && &body[..] == b"grant_type=client_credentials";
    if !form {
        let error =
            json!({"error": "unsupported_grant_type", "error_description": "Grant Type is NULL"});
        return respond(Reply::status(400), error.to_string()).await;
    }
    if header(&headers, "authorization") != Some(basic()) {
        let error =
            json!({"error": "invalid_client", "error_description": "Client Authentication failed"});
        return respond(Reply::status(401), error.to_string()).await;
    }
    let token = {
        let mut script = script.lock().unwrap();
        script.tokens += 1;
        let token = format!("A21AAe2e-{}", script.tokens);
        script.token = Some(token.clone());
        token
    };
    let answer = json!({
        "scope": "https://uri.paypal.com/services/applications/webhooks",
        "access_token": token,
        "token_type": "Bearer",
        "app_id": "APP-80W284485P519543T",
        "expires_in": 32400,
    });
    respond(Reply::status(200), answer.to_string()).await
}

/// `Authorization` of PayPal's client.
fn basic() -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{PAYPAL_CLIENT_ID}:{PAYPAL_CLIENT_SECRET}")))
}

/// A payment as Mercado Pago shows it. `amount` and `refunded` are decimals, written into the JSON as they stand.
pub fn mercado_pago_payment(
    id: u64,
    status: &str,
    amount: &str,
    refunded: &str,
    reference: &str,
) -> Value {
    let detail = match status {
        "approved" => "accredited",
        "refunded" => "refunded",
        _ => "pending_waiting_transfer",
    };
    let text = format!(
        r#"{{
            "id": {id},
            "date_created": "2026-11-20T10:15:30.000-04:00",
            "date_approved": "2026-11-20T10:15:45.000-04:00",
            "date_last_updated": "2026-11-20T10:15:45.000-04:00",
            "date_of_expiration": null,
            "money_release_date": null,
            "operation_type": "regular_payment",
            "payment_method_id": "pix",
            "payment_type_id": "bank_transfer",
            "status": "{status}",
            "status_detail": "{detail}",
            "currency_id": "BRL",
            "description": "Two books",
            "live_mode": true,
            "collector_id": 987654321,
            "payer": {{"type": "customer", "id": "112233", "email": "payer@example.com"}},
            "metadata": {{}},
            "external_reference": "{reference}",
            "transaction_amount": {amount},
            "transaction_amount_refunded": {refunded},
            "coupon_amount": 0,
            "installments": 1,
            "captured": true,
            "refunds": []
        }}"#
    );
    serde_json::from_str(&text).expect("a payment")
}

/// A payment as Mollie shows it; amounts are decimals.
pub fn mollie_payment(id: &str, status: &str, amount: &str, refunded: Option<&str>) -> Value {
    let money = |value: &str| json!({"value": value, "currency": "EUR"});
    let mut payment = json!({
        "resource": "payment",
        "id": id,
        "mode": "test",
        "createdAt": "2026-11-20T13:10:49+00:00",
        "amount": money(amount),
        "description": "Order 12345",
        "method": "ideal",
        "metadata": {"order_id": "12345"},
        "status": status,
        "profileId": "pfl_QkEhN94Ba",
        "sequenceType": "oneoff",
        "redirectUrl": "https://shop.example.com/thanks",
        "webhookUrl": "https://shop.example.com/webhooks/classic",
        "_links": {"self": {"href": format!("https://api.mollie.com/v2/payments/{id}"), "type": "application/hal+json"}},
    });
    if status == "paid" {
        payment["paidAt"] = json!("2026-11-20T13:12:01+00:00");
        payment["amountRefunded"] = money(refunded.unwrap_or("0.00"));
        payment["settlementAmount"] = money(amount);
    }
    payment
}

/// A v2 event as Stripe shows it: what the thin notification has, and `data`.
pub fn stripe_event(thin: &Value) -> Value {
    let mut event = thin.clone();
    event["context"] = Value::Null;
    event["reason"] = Value::Null;
    event["data"] = json!({
        "developer_message_summary": "There is 1 invalid event",
        "reason": {
            "error_count": 1,
            "error_types": [{"code": "meter_event_no_customer_defined", "error_count": 1}],
        },
        "validation_start": "2026-11-20T20:00:00.000Z",
        "validation_end": "2026-11-20T20:00:10.000Z",
    });
    event
}

/// A thin notification of Stripe's.
pub fn stripe_thin(id: &str) -> Value {
    json!({
        "id": id,
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "livemode": false,
        "created": "2026-11-20T20:00:11.000Z",
        "related_object": {
            "id": "mtr_test_61RCjiqdTDC91zgip41IqPCzPnxqqSVc",
            "type": "billing.meter",
            "url": "/v1/billing/meters/mtr_test_61RCjiqdTDC91zgip41IqPCzPnxqqSVc",
        },
    })
}
