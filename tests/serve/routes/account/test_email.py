"""An account gets another address: with the password, and where mail is sent, by a link in the new one."""

from tests.serve.site import PASSWORD


def change(browser, email, password=PASSWORD):
    return browser.post("/auth/email", json={"email": email, "password": password})


def test_without_mail_the_address_is_new_at_once(site):
    person = site.person()
    site.person("bob@example.com")
    assert change(person, "eve@example.com", "wrong one").status_code == 401
    assert change(person, "no address").status_code == 400
    assert change(person, "BOB@example.com").status_code == 409
    assert change(person, "Eve@Example.com").json() == {"is_changed": True}
    assert person.get("/account").json()["email"] == "eve@example.com"
    body = {"email": "eve@example.com", "password": PASSWORD}
    assert site.browser().post("/auth/sign-in", json=body).status_code == 200


def test_with_mail_the_new_address_is_confirmed_by_a_link_and_the_old_one_is_told(mail_site):
    browser, mails = mail_site.browser(), mail_site.mails
    body = {"email": "ada@example.com", "password": PASSWORD}

    def open_link():
        link = {"link": mails[-1][2].strip().rpartition("/")[2]}
        return mail_site.browser().post("/auth/check-email", json=link).status_code

    browser.post("/auth/sign-up", json=body)
    assert open_link() == 204
    assert browser.post("/auth/sign-in", json=body).status_code == 200
    assert change(browser, "eve@example.com").json() == {"is_changed": False}
    assert mails[-1][0] == "eve@example.com"
    assert "/#/link/change_email/" in mails[-1][2]
    assert browser.get("/account").json()["email"] == "ada@example.com"
    assert open_link() == 204
    assert (mails[-1][0], "eve@example.com" in mails[-1][2]) == ("ada@example.com", True)
    account = browser.get("/account").json()
    assert (account["email"], account["is_email_checked"]) == ("eve@example.com", True)


def test_an_address_that_was_taken_meanwhile_stays_its_owners(mail_site):
    accounts = mail_site.hosting.accounts
    ada, _ = (mail_site.do(accounts.invite, f"{name}@example.com", "user") for name in ("ada", "bob"))
    token = mail_site.link("change_email", account=ada, email="bob@example.com")
    assert mail_site.browser().post("/auth/check-email", json={"link": token}).status_code == 409
