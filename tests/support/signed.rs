//! What tests ask of MinIO that rclone has no command for: a bucket with object lock, credentials that may not delete. Signed
//! by hand (<https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>), over plain HTTP.

use super::{ACCESS_KEY, BUCKET, Kind, S3, SECRET_KEY};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Everything is locked for a day.
const LOCKED: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
    <Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";

/// Everything but deletions, form-encoded: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],
/// "Resource":["arn:aws:s3:::*"]},{"Effect":"Deny","Action":["s3:DeleteObject"],"Resource":["arn:aws:s3:::*"]}]}`.
const ADDS_ONLY: &str = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action\
    %22%3A%5B%22s3%3A%2A%22%5D%2C%22Resource%22%3A%5B%22arn%3Aaws%3As3%3A%3A%3A%2A%22%5D%7D%2C%7B%22Effect%22%3A%22Deny%22\
    %2C%22Action%22%3A%5B%22s3%3ADeleteObject%22%5D%2C%22Resource%22%3A%5B%22arn%3Aaws%3As3%3A%3A%3A%2A%22%5D%7D%5D%7D";

impl S3 {
    /// MinIO whose bucket has versions, and locks each of them for a day.
    pub fn locked() -> Self {
        let server = Self::of(Kind::Minio);
        server.rclone(&["rmdir", &format!("minio:{BUCKET}")]);
        let lock = [("x-amz-bucket-object-lock-enabled", "true")];
        server.signed("PUT", &format!("/{BUCKET}"), "", "s3", &lock, "");
        server.signed("PUT", &format!("/{BUCKET}"), "object-lock=", "s3", &[], LOCKED);
        server
    }

    /// From now on the Secret of MinIO has credentials that may do everything but delete.
    pub fn may_only_add(&self) {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600&Policy={ADDS_ONLY}");
        let answer = self.signed("POST", "/", "", "sts", &form, &body);
        for (key, element) in [
            ("ACCESS_KEY_ID", "AccessKeyId"),
            ("SECRET_ACCESS_KEY", "SecretAccessKey"),
            ("SESSION_TOKEN", "SessionToken"),
        ] {
            let (_, rest) = answer.split_once(&format!("<{element}>")).unwrap();
            let (value, _) = rest.split_once("</").unwrap();
            self.configure(&format!("RCLONE_CONFIG_MINIO_{key}"), value);
        }
    }

    /// Sends one request as the owner of everything; the answer.
    fn signed(
        &self,
        method: &str,
        path: &str,
        query: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/us-east-1/{service}/aws4_request", &time[..8]);
        let (host, hash) = (format!("127.0.0.1:{}", self.port()), hex(&Sha256::digest(body)));
        let mut headers = headers.to_vec();
        headers.extend([
            ("host", host.as_str()),
            ("x-amz-content-sha256", &hash),
            ("x-amz-date", &time),
        ]);
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines = headers.iter().fold(String::new(), |mut lines, (name, value)| {
            writeln!(lines, "{name}:{value}").unwrap();
            lines
        });
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{hash}");
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let key = [&time[..8], "us-east-1", service, "aws4_request", &to_sign]
            .iter()
            .fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, part| {
                mac(&key, part.as_bytes())
            });
        let signature = hex(&key);
        let target = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).unwrap();
        let lines = headers.iter().fold(String::new(), |mut lines, (name, value)| {
            write!(lines, "{name}: {value}\r\n").unwrap();
            lines
        });
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\n{lines}Authorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, \
             SignedHeaders={names}, Signature={signature}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{method} {target}: {answer}");
        answer
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    vixens_backup::store::keys::hex(bytes)
}
