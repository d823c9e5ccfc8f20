"""Admins hold registration in a state, and tell everyone of incidents."""


def test_registration_is_held_and_an_invitation_passes(site):
    admin = site.admin()
    admin.post("/admin/gate", json={"state": "invite", "reason": "few machines"})
    body = {"email": "eve@example.com", "password": "quite a long one"}
    assert site.browser().post("/auth/sign-up", json=body).status_code == 403
    token = admin.post("/admin/links", json={"purpose": "invite"}).json()["link"].rpartition("/")[2]
    challenge = site.browser().get("/auth/challenge")
    assert challenge.status_code == 200
    state = admin.get("/admin/gate").json()
    assert (state["state"], state["pin"], state["changes"][0]["reason"]) == (
        "invite",
        "invite",
        "few machines",
    )
    admin.post("/admin/gate", json={"state": "open", "reason": "calm"})
    assert site.browser().post("/auth/sign-up", json={**body, "link": token}).status_code == 201


def test_incidents_are_told(site):
    admin = site.admin()
    number = admin.post("/admin/incidents", json={"text": "Slow since noon"}).json()["number"]
    admin.post("/admin/incidents", json={"text": "It was a disk", "number": number, "is_end": True})
    notes = site.hosting.gate.records
    texts = [note.text for note in site.do(notes.notes, 10)]
    assert texts == ["It was a disk", "Slow since noon"]
