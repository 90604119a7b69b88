//! Hashes of one password, as other systems make them. The unit tests of each kind say with what they were made.

pub const VIOLET: &str = "violet-Kettle-93";

pub const HASHES: &[&str] = &[
    "$argon2id$v=19$m=256,t=2,p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8",
    "$argon2i$v=19$m=256,t=2,p=2$mtk6TskCVzPOjvNGDPmvpw$0TR8LvRitQSl6871W7D0QA",
    "$2a$04$OBmHB5d7Cmp1nY/kvQdOIO3a49QBvqTQrWYQFOWvRRWJWkdhh8PB2",
    "$2b$04$/8ydrnCvsfiPB1yL/GvSZ.lmrhaBM30HFrK3U.msbXqcfZS4MzWHa",
    "$2y$06$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy",
    "$scrypt$ln=10,r=8,p=2$4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA",
    "$pbkdf2$1000$ovTe./.fsxZibI1xrtUaQw$eALJj8cy6yoTkt3FayoUuoW3FsY",
    "$pbkdf2-sha256$1000$BGCMMcY4RyjlvNf6v/deKw$kEUzT5Eo2JA3QONvqkm5rZ.T3KyJJ9zx3rxImPTfedY",
    "$pbkdf2-sha512$1000$HUNozfmfc67VWqtV6v0/xw$iDdhWrch2vb59bK.meYrv.RQEoe1UXDUC9sPW.35avLMK/oGWeP9JJdJritB8pGsjfA.S38wVL7RAG54SiJCjw",
    "$5$rounds=1000$FnobcAGjo3WK/Eim$azZJpsSGpM9ENiWKpEmHKFMYouj/kgRnhN0aGbUaZFD",
    "$6$rounds=1000$nQfJZXjADPnlomFn$1eT0M2EebNP8.CXtbr0OgJYHuKs0KoYzsY8i1jfVB3UyWS.MfHaZ/iaX7lrYioRGZKvRpdHWZ4CmnlGOAQDJB1",
    "pbkdf2_sha256$1200$AbCdEfGhIjKlMnOpQrStUv$RtN3UULge9xcN+tq0PWeisQphsKfg+XdSNqJxssLEaE=",
    "pbkdf2_sha1$1200$AbCdEfGhIjKlMnOpQrStUv$a2VqM/zBbhMXY5wgv9NP5BL+gXY=",
    "bcrypt_sha256$$2b$04$xFGI4U5FrS2ojMyqaaocautF1eyiPCrHeccFtxUMD7nMzYFxd9u02",
    "APUv3KN2C1SPWfUFRP65/InaNHIZqSNt6tCJeseNiKoH3nKR5PEZuYN9ZvfOC9kfZg==",
    "AQAAAAEAACcQAAAAEAABAgMEBQYHCAkKCwwNDg8mVR3M2Nxb56pbH9WmomOCsrKqOOHaxFfh/EniLwQoTg==",
    "$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
    "$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS",
    "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD",
    "{SSHA512}n+rYR2JjBDatqVjS2QLrRyQH9JbqzJWoA/Kbv+j2Zakj+6RmTwKvBhonoWiHRZcdHJA+HQiIJMKLm5LSIllQEsnZO8fY+3/P",
    // Costly ones.
    "419ba91c661e18dbcb26b4c35692c101:192b49b7daa90e8c7fcbf4d362f50425549931d2be9b5118f1cd71f932e19b17cbe2adf302b03f166dce7fb5be42d02c512ab268887eed6ad0d07b0abb9a905b",
    "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==",
];
